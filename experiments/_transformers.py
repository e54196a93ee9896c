"""The family of transformers from 30 million to 30 billion parameters, and the stages of training.

Files of this folder that are named by a size compose what is here. A head is 128 wide at every
size, as TPU kernels want it. A token is 2 x 2 latent cells, so 16 x 16 pixels of 4 frames with the
finer autoencoder and 32 x 32 with the coarser.
"""

import dataclasses
import functools
from collections.abc import Callable

from experiments._autoencoders import AUTOENCODERS
from sora_jax.data.buckets import DataConfig
from sora_jax.data.ladder import buckets_of, equal_classes
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.nn.attention import AttentionConfig
from sora_jax.scaling.flops import Row, train_flops
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig

VAES = {  # by pixels of a latent cell, on a side
    8: AUTOENCODERS["4x8x8"],
    16: AUTOENCODERS["4x16x16"],
}
PATCH = 2
GIVEN = TextConfig(source="given", width=4096)  # what T5 XXL and umT5 XXL make of a caption
TEXT_LENGTH, GIVEN_LENGTH = 256, 512


@dataclasses.dataclass(frozen=True)
class Size:
    """One size of transformer and of the text encoder trained with it."""

    width: int
    depth: int
    peak_rate: float
    mlp_ratio: float = 4.0
    text_width: int = 1024
    text_depth: int = 12


SIZES = {
    "30m": Size(384, 12, 1e-3, text_width=256, text_depth=4),
    "120m": Size(768, 12, 6e-4, text_width=512, text_depth=8),
    "400m": Size(1152, 18, 4e-4),
    "1b": Size(1536, 28, 3e-4),
    "2b": Size(2048, 30, 2e-4),
    "5b": Size(3072, 32, 1.5e-4),
    "14b": Size(5120, 40, 1e-4, mlp_ratio=2.7),
    "30b": Size(6144, 66, 8e-5, mlp_ratio=2.7),
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """Resolutions in tokens a picture of the finer autoencoder, and durations in latent frames, 64
    being 10.5 s."""

    pictures: tuple[int, ...]
    durations: tuple[int, ...]
    steps: int


STAGES = {
    "p256": Stage((256,), (1, 4, 16, 32, 64), 300_000),
    "p480": Stage((400, 1600), (1, 4, 16, 32, 64), 100_000),
    "p720": Stage((900, 3600), (1, 4, 21, 64), 50_000),
    "p1080": Stage((2040, 8160), (1, 4, 16, 64), 20_000),
}


def transformer(
    size_name: str, stage_name: str, mesh: MeshConfig, cell: int, text: TextConfig | None
) -> Experiment:
    """The experiment of a size at a stage, for the devices of a mesh. `cell`: of the autoencoder;
    `text`: of captions that come as embeddings, None to train an encoder along."""
    size, stage = SIZES[size_name], STAGES[stage_name]
    dit = DiTConfig(
        depth=size.depth,
        width=size.width,
        heads=size.width // 128,
        mlp_ratio=size.mlp_ratio,
        patch=PATCH,
        remat="attention",
        compute="bfloat16",
        attention=AttentionConfig(kernel="flash"),
    )
    if text is None:
        text = TextConfig(
            depth=size.text_depth,
            width=size.text_width,
            heads=size.text_width // 64,
            compute="bfloat16",
            recompute=True,
        )
    coarse = "" if cell == 8 else f"_{cell}x{cell}"
    return Experiment(
        name=f"dit_{size_name}_{stage_name}{coarse}" + ("_given" if text is GIVEN else ""),
        data=_data(stage, dit, text, mesh, cell),
        vae=VAES[cell],
        dit=dit,
        text=text,
        vae_stage=VAEStage(_training(100_000, 1e-4), pixel_frames=17 * mesh.replica * mesh.fsdp),
        dit_stage=DiTStage(_training(stage.steps, size.peak_rate)),
        mesh=mesh,
    )


def _data(
    stage: Stage, dit: DiTConfig, text: TextConfig, mesh: MeshConfig, cell: int
) -> DataConfig:
    """Buckets of the stage, and classes in which a step of any costs about the same."""
    vae = VAES[cell]
    text_length = TEXT_LENGTH if text.source == "encoder" else GIVEN_LENGTH
    pictures = [tokens * 64 // cell**2 for tokens in stage.pictures]

    def cost(tokens: int) -> int:
        return train_flops(dit, Row(tokens, vae.channels, text_length, text.width), text)

    lengths = [tokens * frames for tokens in pictures for frames in stage.durations]
    return DataConfig(
        buckets=buckets_of(pictures, stage.durations, temporal=vae.temporal, cell=cell * PATCH),
        shape_classes=equal_classes(
            lengths, ways=mesh.replica * mesh.fsdp, context=mesh.context, cost=cost
        ),
        fps=24.0,
        text_length=text_length,
        vocabulary_size=32_000,
    )


def _training(steps: int, peak_rate: float) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        optimizer=OptimizerConfig("adamw", peak_rate, warmup_steps=2_000),
        ema_decay=0.9999,
    )


def layout(
    size_name: str,
    stage_name: str,
    *,
    fsdp: int,
    context: int = 1,
    replica: int = 1,
    cell: int = 8,
    text: TextConfig | None = None,
) -> Callable[[], Experiment]:
    """The function of an experiment file: a size at a stage, laid out over replica x fsdp x context
    devices, whose batch grows with replica x fsdp."""
    mesh = MeshConfig(replica=replica, fsdp=fsdp, context=context)
    return functools.partial(transformer, size_name, stage_name, mesh, cell, text)
