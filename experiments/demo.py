"""The whole path at toy size: moving shapes of 32 x 32 pixels, on 2 CPU cores.

Run: make demo
Expect: 19:30 minutes, installation included, and 1.7 GiB, measured from a fresh clone on 2 cores of
an AMD EPYC (Zen 4) on 2026-11-24. Of the objects of unseen captions, colour .96, shape .96,
direction .95; count .96 of 192 clips; autoencoder 27.7 dB, 7.6 dB above bilinear.
The world is narrowed to one size of shapes, and nothing touches in the first three quarters of a
second, without which less is learned in the time: with contacts after half a second, 6,500 steps,
fewer of the longest clips and 21:29 minutes, it was .86, .86, .85 and .88, for one clip in eight
could not be read.
"""

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAEConfig
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import VAELossConfig
from sora_jax.world.scene import WorldConfig

SIZES = ((32, 32), (24, 40), (40, 24))


def training(steps: int, *, warmup_steps: int, final_rate: float, ema_decay: float) -> TrainConfig:
    """A run of Muon that saves half-way and at its end."""
    optimizer = OptimizerConfig("muon", 1e-2, warmup_steps, final_rate)
    return TrainConfig(steps, optimizer, ema_decay, save_every=steps // 2, evaluate_every=steps)


def experiment() -> Experiment:
    return Experiment(
        name="demo",
        data=DataConfig(
            buckets=tuple(
                Bucket(frames, height, width, weight)
                for frames, weight in ((1, 1.0), (5, 0.5), (9, 3.0))
                for height, width in SIZES
            ),
            # About equal tokens a step, so about equal cost.
            shape_classes=(ShapeClass(48, 16), ShapeClass(24, 32), ShapeClass(16, 48)),
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
            buckets=("5x32x32", "9x32x32"),
        ),
        text=TextConfig(depth=2, width=64, heads=4),
        dit=DiTConfig(
            depth=4, width=128, heads=4, patch=2, rope_theta=100.0, place_units=2.5, unroll=True
        ),
        dit_stage=DiTStage(
            training=training(8_200, warmup_steps=100, final_rate=0.02, ema_decay=0.998),
            diffusion=DiffusionConfig(
                times=TimesConfig(base_tokens=4),
                conditioning=ConditioningConfig(first_frame=0.15, prefix=0.1),
            ),
            encode_once=True,
        ),
        sampling=SamplingConfig(steps=40, guidance=2.0, rows=32),
        evaluation=EvaluationConfig(prompts=192),
    )
