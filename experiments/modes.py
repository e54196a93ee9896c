"""Every way of prompting, of one small model of moving shapes: all patterns of what is given, in
pictures of 32 x 32 pixels and two other shapes, up to two seconds long.

Run: sora data build --experiment modes --world 12000 --output sets/modes
     sora train --experiment modes --data sets/modes --workdir runs/modes --stage vae
     sora train --experiment modes --data sets/modes --workdir runs/modes --stage dit
     sora evaluate --checkpoint runs/modes --suite modes
Hardware: 2 CPU cores.
Expect: not trained to the end yet. A step is 8.6 GFLOPs, encoding its clips included; at the rate
of worlds.py, 6.6 in 0.25 s, that is 0.33 s: 39 minutes, and 7 for the autoencoder.
The world is the demo's: one size of shapes, and nothing touches in the first three quarters of a
second.
"""

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAEConfig
from sora_jax.sample.generate import SamplingConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import VAELossConfig
from sora_jax.world.scene import WorldConfig

SIZES = ((32, 32), (24, 40), (40, 24))
# What is given beside a clip is its end, or frames from anywhere in it or from long before it: a
# stretch and a single frame, or two of these. A bucket is a program of the encoder, so what every
# shape of picture need not have is of the square alone.
BUCKETS = (
    *(Bucket(1, height, width, 0.5) for height, width in SIZES),
    Bucket(9, 32, 32, 1.0),
    *(Bucket(17, height, width, 3.0) for height, width in SIZES),
    *(Bucket(17, height, width, 3.0, (5, 1)) for height, width in SIZES),
    Bucket(17, 32, 32, 1.5, (1, 1)),
)


def training(steps: int, *, warmup_steps: int, final_rate: float, ema_decay: float) -> TrainConfig:
    """A run of Muon that saves four times."""
    optimizer = OptimizerConfig("muon", 1e-2, warmup_steps, final_rate)
    return TrainConfig(steps, optimizer, ema_decay, save_every=steps // 4, evaluate_every=steps)


def experiment() -> Experiment:
    return Experiment(
        name="modes",
        data=DataConfig(
            buckets=BUCKETS,
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
        world=WorldConfig(
            max_objects=2,
            shapes=("circle", "square", "triangle"),
            sizes=("large",),
            motions=("constant",),
            styles=("dense",),
            free_time=0.75,
        ),
        vae=VAEConfig(
            channels=4, widths=(32, 64), folds=((1, 4), (4, 1)), blocks=1, convolution="matmul"
        ),
        vae_stage=VAEStage(
            training=training(900, warmup_steps=50, final_rate=0.05, ema_decay=0.99),
            loss=VAELossConfig(kl=1e-3),
            pixel_frames=72,
            buckets=("9x32x32", "17x32x32"),
        ),
        text=TextConfig(depth=2, width=64, heads=4),
        dit=DiTConfig(
            depth=4, width=128, heads=4, patch=2, rope_theta=100.0, place_units=2.5, unroll=True
        ),
        dit_stage=DiTStage(
            training=training(7_000, warmup_steps=100, final_rate=0.02, ema_decay=0.998),
            diffusion=DiffusionConfig(
                times=TimesConfig(base_tokens=4),
                conditioning=ConditioningConfig(
                    first_frame=0.2,
                    prefix=0.2,
                    box=0.2,
                    independent=0.15,
                    levels=5,
                    key_frames=0.35,
                    elsewhere=0.25,
                ),
            ),
        ),
        sampling=SamplingConfig(steps=40, guidance=2.0, rows=32),
    )
