"""Checks between the parts of an experiment; every shipped one at full size, and shrunk."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.checkpoints import named
from sora_jax.config import ConfigError, load_experiment, override, to_text
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics, encode_batch, lay_out
from sora_jax.networks import make_generator, make_vae
from sora_jax.programs import step_of
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.optimizer import make_optimizer
from sora_jax.train.state import TrainState, abstract_state, init_state
from sora_jax.train.step import LossFunction
from sora_jax.train.vae_losses import vae_loss
from sora_jax.types import VideoBatch
from tests.kept import check_golden
from tests.tiny import one_device_mesh

REPOSITORY = Path(__file__).resolve().parent.parent
# Small enough to be made here; the others are tests/test_transformers.py's.
SHIPPED = [*sorted(path.stem for path in (REPOSITORY / "experiments").glob("demo*.py")), "modes"]
SHRUNK = (
    "vae.widths=(8,)",
    "vae.channels=2",
    "vae.blocks=1",
    "dit.depth=1",
    "dit.width=32",
    "dit.heads=2",
    "text.depth=1",
    "text.width=32",
    "text.heads=2",
)


def demo(*changes: str) -> Experiment:
    experiment: Experiment = load_experiment("demo", changes)
    return experiment


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["dit.patch=3"], "bucket 1x32x32: 32 x 32 pixels are not multiples of 12"),
        (["data.buckets.8.frames=8"], "bucket 8x40x24: 8 frames are not 1 + 4k"),
        (
            ["data.buckets.8.frames=13"],
            "bucket 13x40x24 needs 60 tokens, more than any shape class (48): add a class",
        ),
        (["dit.heads=5"], "dit.width=128 does not split into heads=5 of even width"),
        (["text.heads=7"], "text.width=64 does not divide by heads=7"),
        (["mesh.tensor=3"], "mesh.tensor=3 does not divide dit.heads=4"),
        (
            ["mesh.context=5"],
            "mesh.context=5: 5 devices that share a row do not divide the 16",
        ),
        (["mesh.replica=5"], "mesh: 48 rows of a batch do not divide over replica x fsdp = 5 in 1"),
        (
            ["mesh.context=4", "data.shape_classes.0.context=2", "data.shape_classes.0.rows=9"],
            "9 rows of a batch do not divide over replica x fsdp x 2 of context = 2 in 1 parts",
        ),
        (["vae.widths=(32,)"], "vae: 1 widths but 2 folds; give one per stage"),
        (["vae_stage.buckets='5x32x31',"], "there is no bucket 5x32x31; there are 1x32x32, "),
        (["dit.depht=3"], "no field 'dit.depht'; did you mean 'dit.depth'"),
        (["dit.depth=deep"], "dit.depth expects an integer, got 'deep'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_together_is_one_sentence(changes: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        demo(*changes)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_shape_classes_hold_their_buckets_closely() -> None:
    experiment = demo()
    for bucket, shape_class in zip(experiment.data.buckets, experiment.classes(), strict=True):
        tokens = experiment.tokens(bucket)
        assert tokens <= shape_class.tokens
        smaller = [c.tokens for c in experiment.data.shape_classes if c.tokens < shape_class.tokens]
        assert all(tokens > size for size in smaller)


def test_the_demo_mixes_images_and_two_durations_of_three_aspects() -> None:
    buckets = demo().data.buckets
    aspects = {bucket.width / bucket.height for bucket in buckets}
    assert len(aspects) >= 3
    for aspect in aspects:
        durations = {b.frames for b in buckets if b.width / b.height == aspect}
        assert 1 in durations
        assert len(durations) >= 3


def stages(experiment: Experiment) -> dict[str, tuple[Any, Any, LossFunction]]:
    """Model, training and loss of each stage."""
    vae_stage, dit_stage = experiment.vae_stage, experiment.dit_stage
    return {
        "vae": (
            functools.partial(make_vae, experiment),
            vae_stage.training,
            vae_loss(vae_stage.loss),
        ),
        "dit": (
            functools.partial(make_generator, experiment),
            dit_stage.training,
            diffusion_loss(dit_stage.diffusion),
        ),
    }


def video_batch(experiment: Experiment, index: int, rows: int) -> VideoBatch:
    bucket, data = experiment.data.buckets[index], experiment.data
    generator = np.random.default_rng(0)
    size = (rows, bucket.frames, bucket.height, bucket.width, 3)
    return VideoBatch(
        video=generator.integers(0, 255, size).astype(np.uint8),
        text=generator.integers(1, data.vocabulary_size, (rows, data.text_length)).astype(np.int32),
        fps=np.full(rows, data.fps, np.float32),
        example_id=np.arange(rows, dtype=np.int32),
    )


def encode(experiment: Experiment, index: int, vae: Any, batch: VideoBatch) -> Any:
    channels = experiment.vae.channels
    statistics = LatentStatistics(jnp.zeros(channels), jnp.ones(channels))
    tokens = experiment.classes()[index].tokens
    grid = experiment.grid(experiment.data.buckets[index])
    encoded = encode_batch(vae, statistics, batch, experiment.dit.patch)
    return lay_out(encoded, grid, experiment.vae.temporal, tokens)


def abstract(experiment: Experiment, stage: str, sizes: tuple[int, ...] = (1, 1, 1, 1)) -> Any:
    make_model, training, _ = stages(experiment)[stage]
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    optimizer = make_optimizer(training.optimizer, training.steps)
    return abstract_state(make_model, optimizer, mesh)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_steps_at_full_size_without_being_made(name: str) -> None:
    experiment: Experiment = load_experiment(name)
    vae = abstract(experiment, "vae").model
    for stage, (_, training, loss) in stages(experiment).items():
        step = step_of(training, loss)
        before = abstract(experiment, stage)
        for index, shape_class in enumerate(experiment.classes()):
            rows = experiment.vae_rows()[index] if stage == "vae" else shape_class.rows
            batch = video_batch(experiment, index, rows)
            if stage == "dit":
                batch = jax.eval_shape(functools.partial(encode, experiment, index), vae, batch)
                assert batch.latents.shape[:2] == (shape_class.rows, shape_class.tokens)
            after, metrics = jax.eval_shape(step, before, batch, jax.random.key(0))
            assert metrics["loss"].shape == ()
            shapes = [
                [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(s)] for s in (before, after)
            ]
            assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_trains_shrunk(name: str) -> None:
    loaded: Experiment = load_experiment(name)
    fold = f"vae.folds=(({loaded.vae.temporal}, {loaded.vae.spatial}),)"
    experiment = override(loaded, *SHRUNK, fold)
    mesh = one_device_mesh()
    index = min(
        range(len(experiment.data.buckets)),
        key=lambda i: (experiment.data.buckets[i].frames == 1, experiment.classes()[i].tokens),
    )
    states: dict[str, TrainState] = {}
    for stage, (make_model, training, loss) in stages(experiment).items():
        step = step_of(training, loss)
        batch = video_batch(experiment, index, 2)
        if stage == "dit":
            encoder = jax.jit(functools.partial(encode, experiment, index))
            batch = encoder(states["vae"].ema, batch)
        state = init_state(make_model, step.optimizer, jax.random.key(0), mesh)
        run = jax.jit(step)
        losses = []
        for _ in range(2):
            state, metrics = run(state, batch, jax.random.key(1))
            losses.append(float(metrics["loss"]))
        assert np.isfinite(losses).all()
        assert float(metrics["update_norm"]) > 0
        states[stage] = state


def test_the_resolved_demo_is_as_it_was(update_golden: bool) -> None:
    check_golden("demo_config.txt", to_text(demo()), update_golden, __file__)


def test_the_parameters_of_the_demo_are_laid_out_as_they_were(update_golden: bool) -> None:
    # replica x fsdp x context x tensor = 2 x 2 x 2 x 1
    lines = []
    for stage in ("vae", "dit"):
        for name, leaf in named(abstract(demo(), stage, (2, 2, 2, 1)).model).items():
            lines.append(f"{stage} {name} {list(leaf.shape)} {leaf.dtype} {leaf.sharding.spec}\n")
    check_golden("demo_parameters.txt", "".join(lines), update_golden, __file__)


def test_buckets_are_named_without_quotes() -> None:
    assert demo("vae_stage.buckets=5x32x32,9x32x32").vae_stage.buckets == ("5x32x32", "9x32x32")
    assert demo("vae_stage.buckets=5x32x32,").vae_stage.buckets == ("5x32x32",)
    assert demo("name=a, b").name == "a, b"
