"""What the runs of the small sweep have in common: transformers of 20 thousand to a million
parameters, two blocks deep, on clips of moving shapes, for 2 CPU cores.

Run: sora data build --experiment sweep --world 20000 --output sets/sweep
     sora train --experiment sweep --data sets/sweep --stage vae --workdir runs/sweep
     sora encode --workdir runs/sweep --data sets/sweep --output sets/sweep_latents
     sora sweep plan --experiment sweep --data sets/sweep_latents --output sweeps/small \
         --budgets 1.28e11:4.096e12:6 --optimum 0.5,0.46 --depth 2 --rule mup --slice cpu-2
Expect: 42 runs of 5.6e13 FLOPs in all, not trained as a whole yet. Of 1.28e11 FLOPs widths 8, 32
and 72 took 179, 52 and 37 seconds beside other work, compilation included, where the plan assumes
6: it takes one share of the peak for all widths. All read one set of latents, so that none spends
time on the autoencoder.
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
