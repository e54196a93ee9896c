"""A run that ends in seconds, for what is done to runs: stopped, killed and started again.

Command: python -m benchmarks.restarts
Hardware: any two cores.
Hours: none; 200 steps take some seconds.
Expected: nothing is learned.
"""

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAEConfig
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.world.scene import WorldConfig

TRAINING = TrainConfig(
    steps=60,
    optimizer=OptimizerConfig(peak_rate=1e-4, warmup_steps=10),
    log_every=5,
    save_every=10,
    evaluate_every=1_000,
)


def experiment() -> Experiment:
    """Images and clips of 16 x 16 and 16 x 24, in rows for up to eight devices."""
    return Experiment(
        name="tiny_run",
        data=DataConfig(
            buckets=(Bucket(1, 16, 16), Bucket(5, 16, 16), Bucket(5, 16, 24)),
            shape_classes=(ShapeClass(16, 4, context=1), ShapeClass(8, 12)),
            text_length=8,
            vocabulary_size=48,
        ),
        world=WorldConfig(max_objects=1),
        vae=VAEConfig(channels=4, widths=(8,), folds=((4, 4),), blocks=1),
        vae_stage=VAEStage(training=TRAINING, pixel_frames=40, buckets=("5x16x16",)),
        text=TextConfig(depth=1, width=32, heads=2),
        dit=DiTConfig(depth=2, width=32, heads=2, patch=2),
        dit_stage=DiTStage(training=TRAINING),
        mesh=MeshConfig(fsdp=2),
    )
