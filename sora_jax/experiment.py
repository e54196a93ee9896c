"""Experiment: the frozen root that composes every package's own config, and checks across them."""

import dataclasses

from sora_jax.config import ConfigError
from sora_jax.data.buckets import (
    Bucket,
    DataConfig,
    Period,
    ShapeClass,
    bucket_classes,
    check_buckets,
    sources_by_period,
    weights_by_period,
)
from sora_jax.data.schedule import Schedule
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.models.autoencoders import AutoencoderConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.patches import Grid
from sora_jax.models.text import TextConfig
from sora_jax.nn.attention import AttentionConfig
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.sharding.mesh import MeshConfig, sharing_a_row
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import VAELossConfig
from sora_jax.world.scene import WorldConfig


@dataclasses.dataclass(frozen=True)
class VAEStage:
    """How the autoencoder is trained: `pixel_frames` a step, from `buckets` by name (empty: all).

    It is convolutional and causal, so a few sizes teach it all; every size is a compiled program.
    """

    training: TrainConfig
    loss: VAELossConfig = VAELossConfig()
    pixel_frames: int = 144
    buckets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DiTStage:
    """How the transformer and the text encoder are trained, on the frozen autoencoder's latents.

    `encode_once` makes the latents of the whole set before the first step, and not those of every
    batch as it comes: for sets that are small and read many times.
    """

    training: TrainConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    encode_once: bool = False
    curriculum: tuple[Period, ...] = ()  # changes of the buckets' weights, at steps of training

    def periods(self) -> tuple[Period, ...]:
        """The curriculum at steps of the loader, which gives `micro_batches` batches a step."""
        each = self.training.micro_batches
        return tuple(
            dataclasses.replace(period, start_step=each * period.start_step)
            for period in self.curriculum
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run. An experiment file returns one."""

    name: str
    data: DataConfig
    vae: AutoencoderConfig
    dit: DiTConfig
    vae_stage: VAEStage
    dit_stage: DiTStage
    text: TextConfig = TextConfig()
    mesh: MeshConfig = MeshConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    world: WorldConfig = WorldConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        check_buckets(self.data, self.vae.temporal, self.vae.spatial * self.dit.patch)
        bucket_classes(self.data, self.tokens)
        names = [bucket.name for bucket in self.data.buckets]
        for name in self.vae_stage.buckets:
            if name not in names:
                raise ConfigError(
                    f"vae_stage.buckets: there is no bucket {name}; there are {', '.join(names)}"
                )
        # Now, and not when the first stage is done: a curriculum is for the second alone.
        Schedule(weights_by_period(self.data.buckets, self.dit_stage.curriculum), self.seed)
        sources_by_period(self.data.sources, self.dit_stage.curriculum)
        self._check_mesh()

    def _check_mesh(self) -> None:
        if self.dit.heads % self.mesh.tensor:
            raise ConfigError(
                f"mesh.tensor={self.mesh.tensor} does not divide dit.heads={self.dit.heads}"
            )
        if self.mesh.context > 1:
            self.dit.attention.check(self.dit.heads, self.mesh.context, self.mesh.tensor)
        for shape_class in self.data.shape_classes:
            self.check_class(shape_class)

    def check_class(self, shape_class: ShapeClass) -> None:
        """Raises ConfigError unless the mesh divides the rows and tokens of a class."""
        whole = max(self.mesh.context, 1)
        sharing = sharing_a_row(whole, shape_class.context)
        others = whole // sharing
        if shape_class.rows % (self._ways * others * shape_class.parts):
            at_most = f" x {others} of context" if others > 1 else ""
            raise ConfigError(
                f"mesh: {shape_class.rows} rows of a batch do not divide over replica x fsdp"
                f"{at_most} = {self._ways * others} in {shape_class.parts} parts: change the rows, "
                "or the class's parts or context"
            )
        if shape_class.tokens % sharing:
            raise ConfigError(
                f"mesh.context={whole}: {sharing} devices that share a row do not divide the "
                f"{shape_class.tokens} tokens of a shape class"
            )

    def trained(self) -> "Experiment":
        """This experiment with the parts that do not decide what is learned at their defaults: a
        run may go on over another mesh, computed in another way to the same numbers, be logged and
        saved in another rhythm, and be sampled and scored in other ways."""
        change = dataclasses.replace

        def without_rhythm(training: TrainConfig) -> TrainConfig:
            kept = ("steps", "optimizer", "ema_decay", "micro_batches", "max_skips")
            return TrainConfig(**{name: getattr(training, name) for name in kept})

        whole = tuple(change(each, parts=1, context=None) for each in self.data.shape_classes)
        return change(
            self,
            data=change(self.data, shape_classes=whole),
            mesh=MeshConfig(),
            sampling=SamplingConfig(),
            evaluation=EvaluationConfig(),
            vae=self.vae.trained(),
            text=change(self.text, recompute=False),
            dit=change(self.dit, unroll=False, remat="none", attention=AttentionConfig()),
            vae_stage=change(
                self.vae_stage,
                training=without_rhythm(self.vae_stage.training),
                loss=change(self.vae_stage.loss, perceptual_weights=""),
            ),
            dit_stage=change(
                self.dit_stage,
                training=without_rhythm(self.dit_stage.training),
                encode_once=False,
            ),
        )

    def grid(self, bucket: Bucket) -> Grid:
        """Size of a bucket's clips in tokens."""
        side = self.vae.spatial * self.dit.patch
        frames = (bucket.frames - 1) // self.vae.temporal + 1
        return Grid(frames, bucket.height // side, bucket.width // side)

    def tokens(self, bucket: Bucket) -> int:
        """Of a clip, with those appended to it."""
        appended = [Bucket(each, bucket.height, bucket.width) for each in bucket.appended]
        return sum(self.grid(each).tokens for each in (bucket, *appended))

    def classes(self) -> tuple[ShapeClass, ...]:
        """Shape class of each bucket."""
        return bucket_classes(self.data, self.tokens)

    def clips_in_row(self, bucket: int) -> int:
        """Clips of a bucket, by its index, that share a row of its shape class."""
        return self.classes()[bucket].clips_in_row(self.tokens(self.data.buckets[bucket]))

    def batch_clips(self) -> tuple[int, ...]:
        """Clips of each bucket in a batch of the transformer's training."""
        return tuple(
            each.rows * self.clips_in_row(bucket) for bucket, each in enumerate(self.classes())
        )

    def vae_rows(self) -> tuple[int, ...]:
        """Clips of each bucket in a step of the autoencoder's training: as `pixel_frames` has, in
        multiples of the devices that rows are split over."""
        frames, ways = self.vae_stage.pixel_frames, self._ways
        return tuple(max(1, frames // bucket.frames // ways) * ways for bucket in self.data.buckets)

    @property
    def _ways(self) -> int:
        """Devices that rows are split over, as far as the config says."""
        return max(self.mesh.replica, 1) * max(self.mesh.fsdp, 1)
