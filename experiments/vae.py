"""Autoencoders: a small one of real footage for 2 CPU cores, and the sizes that pods train.

Run: python -m benchmarks.footage --output sets/footage
     sora train --experiment vae --data sets/footage/train --workdir runs/vae --stage vae
     sora vae score --run runs/vae --data sets/footage/held_out
Sizes: `sora vae sizes`; vae:f4x8x8, vae:f4x16x16 and vae:f8x32x32 for 64 chips.
"""

from experiments._autoencoders import AUTOENCODERS
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.dit import DiTConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import VAELossConfig

LENGTHS = (1, 5, 9, 17, 33)
STEPS = 2_000


def experiment() -> Experiment:
    """L1 and KL alone, on crops of 64 x 64 and 48 x 80 pixels."""
    sizes = [(frames, 64, 64) for frames in LENGTHS]
    sizes += [(frames, 48, 80) for frames in (1, 5, 17)]
    return Experiment(
        name="vae",
        data=DataConfig(
            buckets=tuple(Bucket(*size, weight=2.0 if size[0] > 9 else 1.0) for size in sizes),
            shape_classes=(ShapeClass(4, 2304),),
            fps=24.0,
            text_length=8,
            vocabulary_size=64,
        ),
        vae=AUTOENCODERS["small"],
        vae_stage=VAEStage(
            TrainConfig(
                STEPS,
                OptimizerConfig("muon", 1e-2, warmup_steps=50, final_rate=0.05),
                ema_decay=0.995,
                save_every=STEPS // 4,
                evaluate_every=STEPS,
            ),
            VAELossConfig(squared=0.0, absolute=1.0, kl=1e-4),
            pixel_frames=34,
            buckets=("1x64x64", "5x64x64", "17x64x64", "17x48x80"),
        ),
        dit=DiTConfig(depth=2, width=64, heads=2, patch=1),
        dit_stage=DiTStage(TrainConfig(1_000)),
    )
