"""What native sizes are worth: one model of wide and tall clips as they are, and one of their
square crops.

Run: python -m benchmarks.framing --output runs/framing
Hardware: 2 CPU cores.
Expect: trained on whole pictures .92 to .96 of the clips have their subject fully in frame, on
square crops .13 to .33 (docs/modes.md); six runs of 9 to 11 minutes, two at a time, and 14 of
sampling.
A body of the procedural world moves for half a second without touching the edge of the picture,
which is of 3:5 or 5:3. `framing:square` learns from the middle of the same clips. Both have rows of
the same lengths, padding included, so a step of either costs the same.
"""

import dataclasses

from experiments import demo
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.experiment import Experiment

NATIVE, SQUARE = ((24, 40), (40, 24)), ((32, 32),)
FRAMES = (1, 9)


def experiment() -> Experiment:
    """Learns from whole pictures."""
    return _of("framing", NATIVE)


def square() -> Experiment:
    """Learns from crops of 1:1."""
    return _of("framing_square", SQUARE)


def _of(name: str, sizes: tuple[tuple[int, int], ...]) -> Experiment:
    base = demo.experiment()
    buckets = tuple(Bucket(n, *size, 1 / len(sizes)) for n in FRAMES for size in sizes)
    return dataclasses.replace(
        base,
        name=name,
        data=DataConfig(
            buckets=buckets,
            shape_classes=(ShapeClass(48, 16), ShapeClass(16, 48)),
            fps=16.0,
            text_length=16,
            vocabulary_size=128,
        ),
        world=dataclasses.replace(base.world, max_objects=1),
        vae=dataclasses.replace(base.vae, convolution="direct"),
        vae_stage=dataclasses.replace(
            base.vae_stage,
            training=demo.training(600, warmup_steps=50, final_rate=0.05, ema_decay=0.99),
            buckets=tuple(bucket.name for bucket in buckets if bucket.frames > 1),
        ),
        dit_stage=dataclasses.replace(
            base.dit_stage,
            training=demo.training(2_000, warmup_steps=100, final_rate=0.02, ema_decay=0.995),
        ),
    )
