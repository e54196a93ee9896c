"""Text to video with 30 million parameters, on the open weights of Wan 2.1's autoencoder.

Import: sora import wan Wan2.1-T2V-1.3B --output RUN --experiment wan_vae
Run:    sora train --experiment wan_vae --data SET --stage dit --workdir RUN
"""

import dataclasses

from experiments._transformers import layout
from sora_jax.experiment import Experiment
from sora_jax.models.wan_vae import WanVAEConfig


def experiment() -> Experiment:
    """Its latents are of the size of those of dit_30m's own autoencoder, 4x8x8 with 16 channels."""
    own = layout("30m", "p256", fsdp=4)()
    return dataclasses.replace(own, name="wan_vae", vae=WanVAEConfig(compute="bfloat16"))
