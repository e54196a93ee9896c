"""FLOPs of batches are those of the programs that steps run, matmul for matmul."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Bucket, Period, ShapeClass, weights_by_period
from sora_jax.data.schedule import Schedule
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics, encode_batch
from sora_jax.networks import make_generator, make_vae
from sora_jax.prepare import abstract_clips
from sora_jax.programs import abstract_batch
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.step import LossFunction, Moment
from sora_jax.train.vae_losses import vae_loss
from sora_jax.work import (
    dit_work,
    peak_flops,
    steps_for,
    training_flops,
    training_tokens,
    vae_work,
)
from tests.scaling.test_flops import traced_flops

MESH = make_mesh(load_experiment("demo").mesh, jax.devices()[:1])


def experiment(remat: str = "none", clips: int = 1) -> Experiment:
    """The demo, whose convolutions are matmuls, with one class that has places for `clips`."""
    made = load_experiment("demo", [f"dit.remat={remat}", "dit.unroll=False"])
    longest = dataclasses.replace(made.data.shape_classes[-1], clips=clips)
    data = dataclasses.replace(made.data, shape_classes=(longest,))
    return dataclasses.replace(made, data=data)


MOMENT = Moment(jax.random.key(0), 0)


def traced_step(loss: LossFunction, model: object, batch: object, rows: int) -> int:
    grad = jax.value_and_grad(lambda *inputs: loss(*inputs, MOMENT, rows)[0])
    return traced_flops(grad, model, batch)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_batch_of_the_transformer_is_the_work_of_its_step(remat: str) -> None:
    made = experiment(remat)
    model = jax.eval_shape(lambda: make_generator(made, nnx.Rngs(0)))
    loss, its_class = diffusion_loss(made.dit_stage.diffusion), made.classes()[0]
    batch = abstract_batch(made, its_class, MESH)
    found = traced_step(loss, model, batch, its_class.rows)
    for work in dit_work(made, encodes=False).values():
        assert work.hardware == found
        assert (work.model == found) == (remat == "none")


def test_encoding_on_the_way_is_work_of_the_devices_alone() -> None:
    made = experiment(clips=3)  # images share rows: a row has more clips than one
    assert max(made.batch_clips()) == 3 * made.classes()[0].rows
    vae = jax.eval_shape(lambda: make_vae(made, nnx.Rngs(0)))
    statistics = LatentStatistics(np.zeros(4, np.float32), np.ones(4, np.float32))
    encode = functools.partial(encode_batch, patch=made.dit.patch)
    read, encoded = dit_work(made, encodes=False), dit_work(made, encodes=True)
    for k, bucket in enumerate(made.data.buckets):
        clips = abstract_clips(made, k, made.batch_clips()[k], MESH)
        found = traced_flops(encode, vae, statistics, clips)
        assert encoded[bucket.name].hardware - read[bucket.name].hardware == found
        assert encoded[bucket.name].model == read[bucket.name].model


def test_a_batch_of_the_autoencoder_is_the_work_of_its_step() -> None:
    made = experiment()
    model = jax.eval_shape(lambda: make_vae(made, nnx.Rngs(0)))
    for k, bucket in enumerate(made.data.buckets):
        rows = made.vae_rows()[k]
        batch = abstract_clips(made, k, rows, MESH)
        work = vae_work(made)[bucket.name]
        assert work.model == work.hardware
        assert work.model == traced_step(vae_loss(made.vae_stage.loss), model, batch, rows)


def test_the_peak_is_of_a_jax_device_where_it_is_known() -> None:
    assert peak_flops("TPU v5") == 459e12
    assert peak_flops("TPU7x") == 2307e12 / 2  # a core, half of a chip
    assert peak_flops("cpu") is None


@pytest.mark.parametrize("steps", [1, 137, 500])
def test_training_costs_what_its_batches_cost(steps: int) -> None:
    made = load_experiment("demo", ["dit_stage.training.micro_batches=2"])
    first_bucket, *others = (bucket.name for bucket in made.data.buckets)
    later = Period(60, ((first_bucket, 1.0), *((name, 0.0) for name in others)))
    for curriculum in ((), (later,)):
        stage = dataclasses.replace(made.dit_stage, curriculum=curriculum)
        changed = dataclasses.replace(made, dit_stage=stage)
        work = dit_work(changed, encodes=False)
        schedule = Schedule(weights_by_period(made.data.buckets, stage.periods()), made.seed)
        drawn = [schedule[k][0] for k in range(2 * steps)]
        total = sum(work[made.data.buckets[k].name].model for k in drawn)
        assert training_flops(changed, steps) == total
        assert steps_for(changed, 1.0005 * total) == steps


def test_tokens_are_counted_with_those_of_appended_clips_and_without_padding() -> None:
    image, clip = Bucket(1, 32, 32), Bucket(9, 32, 32, appended=(1, 5))
    made = load_experiment("demo")
    classes = (ShapeClass(4, 40, clips=2), ShapeClass(2, 128))
    data = dataclasses.replace(made.data, buckets=(image, clip), shape_classes=classes)
    made = dataclasses.replace(
        made, data=data, vae_stage=dataclasses.replace(made.vae_stage, buckets=())
    )
    # A picture is 4 x 4 tokens. Two share a row of 40; a clip of 3 latent frames has 1 and 2 more.
    assert training_tokens(made, 100) == 50 * (4 * 2 * 16) + 50 * (2 * 6 * 16)
