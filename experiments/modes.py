"""Every way of prompting, of one small model of moving shapes: all patterns of what is given, in
pictures of 32 x 32 pixels and eight other sizes, up to two seconds long.

Run: sora data build --experiment modes --world 40000 --output sets/modes
     sora train --experiment modes --data sets/modes --workdir runs/modes --stage vae
     sora train --experiment modes --data sets/modes --workdir runs/modes --stage dit
     sora evaluate --checkpoint runs/modes --suite modes
Hardware: 2 CPU cores.
Expect: 55 of 69 measures as wanted, after 53 minutes and 97 of processor time (docs/modes.md has
them all). A step is 6.5 GFLOPs, encoding its clips included.
The world is the demo's, and a seventh of the scenes swing: one size of shapes, and nothing touches
in the first three quarters of a second.
"""

import dataclasses

from experiments import demo
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.experiment import Experiment

# A few smaller, larger and wider ones, so that sizes in between are no surprise.
OTHER_SIZES = ((24, 24), (24, 32), (32, 24), (32, 48), (48, 32), (40, 40))


def _buckets() -> tuple[Bucket, ...]:
    """What is given beside a clip is its end, or frames from anywhere in it or from long before it:
    a stretch and a single frame, or two of these. A bucket is a program of the encoder, so what
    every shape of picture need not have is of the square alone.
    """
    return (
        *(Bucket(1, height, width, 0.5) for height, width in demo.SIZES),
        Bucket(9, 32, 32, 1.0),
        *(Bucket(17, height, width, 2.5) for height, width in demo.SIZES),
        *(Bucket(17, height, width, 0.75) for height, width in OTHER_SIZES),
        *(Bucket(17, height, width, 2.0, (5, 1)) for height, width in demo.SIZES),
        Bucket(17, 32, 32, 1.0, (1, 1)),
    )


def experiment() -> Experiment:
    """The demo's networks and world, other clips and all patterns."""
    base = demo.experiment()
    conditioning = ConditioningConfig(
        first_frame=0.2,
        prefix=0.15,
        box=0.12,
        independent=0.15,
        levels=5,
        key_frames=0.3,
        elsewhere=0.3,
    )
    return dataclasses.replace(
        base,
        name="modes",
        data=DataConfig(
            buckets=_buckets(),
            # About equal tokens a step, so about equal cost.
            shape_classes=(
                ShapeClass(60, 16),
                ShapeClass(20, 48),
                ShapeClass(12, 80),
                ShapeClass(8, 128),
            ),
            text_length=16,
            vocabulary_size=128,
        ),
        # Nothing else in this world closes a loop.
        world=dataclasses.replace(base.world, swing=0.15),
        vae=dataclasses.replace(base.vae, convolution="direct"),
        vae_stage=dataclasses.replace(base.vae_stage, buckets=("9x32x32", "17x32x32")),
        dit_stage=dataclasses.replace(
            base.dit_stage,
            training=demo.training(20_000, warmup_steps=100, final_rate=0.02, ema_decay=0.998),
            diffusion=dataclasses.replace(base.dit_stage.diffusion, conditioning=conditioning),
            encode_once=False,
        ),
        evaluation=EvaluationConfig(),
    )
