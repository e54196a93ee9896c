"""The family of transformers: sizes, stages, and a step of every class without being made."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from sora_jax.checkpoints import named
from sora_jax.config import ConfigError, load_experiment
from sora_jax.experiment import Experiment
from sora_jax.networks import make_generator
from sora_jax.programs import abstract_batch, abstract_key, bytes_by_kind, step_of
from sora_jax.scaling.flops import Row, count_parameters, hardware_flops, train_flops
from sora_jax.sharding.mesh import AXES, MeshConfig, make_mesh
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.programs import abstract_sums
from sora_jax.train.state import abstract_state, init_state
from tests.kept import check_golden

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("dit_*.py"))
STAGES = ("experiment", "p480", "p720", "p1080")
MILLIONS = {"m": 1, "b": 1_000}
SHRUNK = (
    "dit.depth=1",
    "dit.width=32",
    "dit.heads=2",
    "dit.attention.kernel=reference",
    "text.depth=1",
    "text.width=32",
    "text.heads=2",
    "mesh.fsdp=1",
    "mesh.context=1",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_transformer_has_the_parameters_it_is_named_by(name: str) -> None:
    experiment: Experiment = load_experiment(name)
    model = jax.eval_shape(lambda: make_generator(experiment, nnx.Rngs(0)))
    millions = int(name[4:-1]) * MILLIONS[name[-1]]
    found = count_parameters(model.dit).total / 1e6
    assert 0.9 * millions < found < 1.15 * millions
    assert experiment.dit.width // experiment.dit.heads == 128


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_laid_out_as_it_was(name: str, update_golden: bool) -> None:
    """EMA, moments and gradients like their parameters, and these as the golden file says."""
    experiment: Experiment = load_experiment(f"{name}:p720")
    mesh = AbstractMesh(experiment.mesh.sizes, AXES)
    step = step_of(experiment.dit_stage.training, diffusion_loss(experiment.dit_stage.diffusion))
    state = abstract_state(functools.partial(make_generator, experiment), step.optimizer, mesh)
    batch = abstract_batch(experiment, experiment.data.shape_classes[-1], mesh)
    sums = abstract_sums(step, state, batch, abstract_key(mesh))
    specs = specs_of(state.model)
    assert specs_of(state.ema) == specs
    for moments in ("mu", "nu"):
        assert specs_of(optax.tree.get(state.opt_state, moments)) == specs
    assert [PartitionSpec(*spec[1:]) for spec in specs_of(sums.gradients)] == specs
    lines = [
        f"{name} {list(leaf.shape)} {leaf.dtype} {leaf.sharding.spec}\n"
        for name, leaf in named(state.model).items()
    ]
    check_golden(f"sharding/{name}_p720.txt", "".join(lines), update_golden, __file__)


def specs_of(tree: Any) -> list[PartitionSpec]:
    return [leaf.sharding.spec for leaf in jax.tree.leaves(tree)]


def test_given_embeddings_cost_no_encoder() -> None:
    given: Experiment = load_experiment("dit_14b:p720_given")
    row = Row(1024, 16, 512, 4096)
    for flops in (train_flops, hardware_flops):
        assert flops(given.dit, row, given.text) == flops(given.dit, row)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_has_few_classes_of_equal_cost_and_little_padding(name: str, stage: str) -> None:
    experiment: Experiment = load_experiment(f"{name}:{stage}")
    classes = experiment.data.shape_classes
    assert len(classes) <= 8
    width = experiment.text.width
    costs = [
        each.rows * train_flops(experiment.dit, Row(each.tokens, 16, 256, width), experiment.text)
        for each in classes
    ]
    assert max(costs) <= 1.3 * min(costs)
    assert len(experiment.data.buckets) % 9 == 0
    for each in classes:
        waste = [
            1 - experiment.tokens(bucket) / each.tokens
            for bucket, its in zip(experiment.data.buckets, experiment.classes(), strict=True)
            if its == each
        ]
        assert waste
        assert sum(waste) / len(waste) <= 0.04


@pytest.mark.parametrize("name", NAMES)
def test_every_function_of_an_experiment_gives_one(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text()
    functions = re.findall(r"^(?:def )?(\w+)(?: = layout\(|\(\) -> Experiment:)", source, re.M)
    assert set(STAGES) <= set(functions)
    for function in functions:
        assert isinstance(load_experiment(f"{name}:{function}"), Experiment)


def test_a_stage_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has no function p999\(\)"):
        load_experiment("dit_30m:p999")


@pytest.mark.parametrize("name", ["dit_30m:p1080", "dit_14b:p720_given"])
def test_every_class_steps_without_being_made(name: str) -> None:
    experiment: Experiment = load_experiment(name)
    stage = experiment.dit_stage
    step = step_of(stage.training, diffusion_loss(stage.diffusion), experiment.data.shape_classes)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = abstract_state(functools.partial(make_generator, experiment), step.optimizer, mesh)
    sizes = bytes_by_kind(state)
    assert sizes["ema"] == sizes["parameters"]
    assert abs(sizes["optimizer"] - 2 * sizes["parameters"]) < 100
    if experiment.text.source == "given":
        names = [v.get_metadata()["axes"] for v in jax.tree.leaves(state.model, is_leaf=is_param)]
        assert not [axes for axes in names if "vocabulary" in axes]
    for shape_class in experiment.data.shape_classes:
        batch = abstract_batch(experiment, shape_class, mesh)
        with jax.set_mesh(mesh):
            after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
        assert metrics["loss"].shape == ()
        shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (state, after)]
        assert shapes[0] == shapes[1]


def is_param(leaf: object) -> bool:
    return isinstance(leaf, nnx.Param)


def test_a_transformer_trains_shrunk() -> None:
    experiment: Experiment = load_experiment("dit_30m", SHRUNK)
    stage = experiment.dit_stage
    step = step_of(stage.training, diffusion_loss(stage.diffusion))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    make = functools.partial(make_generator, experiment)
    state = init_state(make, step.optimizer, jax.random.key(0), mesh)
    shortest = min(experiment.data.shape_classes, key=lambda each: each.tokens)
    generator = np.random.default_rng(0)

    def filled(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = generator.normal(size=(2, *leaf.shape[1:]))
        return np.ones_like(values, leaf.dtype) if leaf.dtype == np.int32 else values.astype("f4")

    batch = jax.tree.map(filled, abstract_batch(experiment, shortest, mesh))
    batch = dataclasses.replace(batch, appended=np.zeros_like(batch.appended))
    state, metrics = jax.jit(step)(state, batch, jax.random.key(1))
    assert np.isfinite(float(metrics["loss"]))
