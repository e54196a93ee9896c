"""One model of the five procedural worlds: discs that bounce, a shape behind a bar, a camera that
pans and returns, a cube that spins, and a square that paints as it is told.

Run: sora data build --experiment worlds --world 20000 --output sets/worlds
     sora train --experiment worlds --data sets/worlds --workdir runs/worlds --stage vae
     sora train --experiment worlds --data sets/worlds --workdir runs/worlds --stage dit
     sora evaluate --checkpoint runs/worlds --suite world
Hardware: 2 CPU cores; 4 steps of the transformer a second.
Expect: after 12,000 steps and 55 minutes, the composite of unseen clips, between floor and ceiling,
is 1.00 of the occluder, .96 of the pan, .62 of the bounce, .46 of the painter and 0 of the cube
(docs/evaluation.md).
"""

from sora_jax.checkpoints import RetentionConfig
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


def training(steps: int, *, warmup_steps: int, final_rate: float, ema_decay: float) -> TrainConfig:
    """A run of Muon that saves ten times, and keeps all, to be compared."""
    optimizer, tenth = OptimizerConfig("muon", 1e-2, warmup_steps, final_rate), steps // 10
    retention = RetentionConfig(every_steps=tenth)
    return TrainConfig(
        steps,
        optimizer,
        ema_decay,
        save_every=tenth,
        evaluate_every=steps,
        retention=retention,
    )


def experiment() -> Experiment:
    return Experiment(
        name="worlds",
        data=DataConfig(
            buckets=(Bucket(17, 32, 32),),
            shape_classes=(ShapeClass(12, 80),),
            fps=16.0,
            text_length=40,
            vocabulary_size=128,
        ),
        vae=VAEConfig(
            channels=8, widths=(32, 64), folds=((1, 4), (4, 1)), blocks=1, convolution="matmul"
        ),
        vae_stage=VAEStage(
            training=training(1_500, warmup_steps=50, final_rate=0.05, ema_decay=0.99),
            loss=VAELossConfig(kl=1e-3),
            pixel_frames=85,
        ),
        text=TextConfig(depth=2, width=64, heads=4),
        dit=DiTConfig(
            depth=4, width=128, heads=4, patch=2, rope_theta=100.0, place_units=2.5, unroll=True
        ),
        dit_stage=DiTStage(
            training=training(24_000, warmup_steps=100, final_rate=0.02, ema_decay=0.999),
            diffusion=DiffusionConfig(
                times=TimesConfig(base_tokens=4),
                conditioning=ConditioningConfig(first_frame=0.7, prefix=0.1),
            ),
            encode_once=True,
        ),
        sampling=SamplingConfig(steps=40, guidance=1.0, rows=32),
        evaluation=EvaluationConfig(
            worlds=("bounce", "occluder", "pan", "cube", "painter"),
        ),
    )
