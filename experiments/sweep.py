r"""What the runs of the small sweep have in common: transformers of 20 thousand to a million
parameters, two blocks deep, on clips of moving shapes, for 2 CPU cores.

Run: sora data build --experiment sweep --world 60000 --output sets/sweep
     sora train --experiment sweep --data sets/sweep --stage vae --workdir runs/sweep
     sora encode --workdir runs/sweep --data sets/sweep --output sets/sweep_latents
     sora sweep plan --experiment sweep --data sets/sweep_latents --output sweeps/small \
         --budgets 1.28e11:4.096e12:6 --sizes 5 --few --optimum 0.75,0.46 --depth 2 --rule mup \
         --slice cpu-2
     or all of it, and a fit: python -m benchmarks.small_sweep --output runs/small_sweep
Expect: 30 runs of 4e13 FLOPs in all, in 78 minutes one after another on 2 cores that another
training shared, and 5 for what they are made of; the lowest loss of a budget falls from .770 to
.411. All read one set of latents, so that none spends time on the autoencoder.
"""

import dataclasses

from experiments import demo
from sora_jax.data.buckets import Bucket, ShapeClass
from sora_jax.experiment import Experiment
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig


def experiment() -> Experiment:
    base = demo.experiment()
    return dataclasses.replace(
        base,
        name="sweep",
        data=dataclasses.replace(
            base.data, buckets=(Bucket(5, 32, 32),), shape_classes=(ShapeClass(16, 32),)
        ),
        vae=dataclasses.replace(base.vae, convolution="direct"),
        vae_stage=dataclasses.replace(
            base.vae_stage,
            training=demo.training(400, warmup_steps=50, final_rate=0.05, ema_decay=0.99),
            buckets=(),
        ),
        text=TextConfig(depth=1, width=32, heads=2),
        dit=DiTConfig(
            depth=2, width=64, heads=8, patch=2, rope_theta=100.0, place_units=2.5, unroll=True
        ),
        dit_stage=dataclasses.replace(
            base.dit_stage,
            training=TrainConfig(
                steps=1_000,
                optimizer=OptimizerConfig(
                    peak_rate=3e-3, warmup_steps=20, final_rate=0.05, weight_decay=0.0
                ),
            ),
            encode_once=False,
        ),
    )
