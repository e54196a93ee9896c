"""Text to video with 14 billion parameters, laid out for TPU v5p:4x4x4, or for as many chips as a
name says.

Check: sora compile --experiment dit_14b:p720 --topology v5p:4x4x4
       (720p, 128 rows x 75,776 tokens in 4 parts: 50.1 of 95 GiB a chip, 127 s predicted)
Run:   sora train --experiment dit_14b --data SET --stage dit --workdir RUN

A minute of 1080p on v5p:4x4x8, predicted: 1.5 hours and 7.3 GiB a device for 20 steps.
Check: sora compile --experiment dit_14b:minute_1080p --topology v5p:4x4x8 --what sample \\
           --clip 1441x1088x1920
"""

import dataclasses

from experiments._transformers import GIVEN, layout
from sora_jax.experiment import Experiment
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.sharding.mesh import MeshConfig

experiment = layout("14b", "p256", fsdp=64)
p480 = layout("14b", "p480", fsdp=32, context=2)
p720 = layout("14b", "p720", fsdp=16, context=4)
p1080 = layout("14b", "p1080", fsdp=8, context=8)
p720_given = layout("14b", "p720", fsdp=16, context=4, text=GIVEN)
p720_on_4 = layout("14b", "p720", fsdp=1, context=4)
p720_on_128 = layout("14b", "p720", fsdp=32, context=4)
p720_on_256 = layout("14b", "p720", fsdp=64, context=4)
p720_on_512 = layout("14b", "p720", fsdp=128, context=4)
p720_on_1024 = layout("14b", "p720", fsdp=256, context=4)
p720_on_2_slices = layout("14b", "p720", replica=2, fsdp=16, context=4)


def minute_1080p() -> Experiment:
    """Samples a clip of what `p1080` trains at a time, its tokens over all of v5p:4x4x8."""
    trained = p1080()
    attention = dataclasses.replace(trained.dit.attention, context="ring", ulysses=8)
    classes = tuple(
        dataclasses.replace(each, context=None, parts=1) for each in trained.data.shape_classes
    )
    return dataclasses.replace(
        trained,
        data=dataclasses.replace(trained.data, shape_classes=classes),
        dit=dataclasses.replace(trained.dit, attention=attention),
        mesh=MeshConfig(fsdp=1, context=128),
        sampling=SamplingConfig(rows=1),
    )
