"""FLOPs of batches are those of the programs that steps run, matmul for matmul."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Period, weights_by_period
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
from sora_jax.work import dit_work, peak_flops, training_flops, vae_work
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


def test_training_costs_what_its_batches_cost_in_their_shares() -> None:
    made = load_experiment("demo", ["dit_stage.training.micro_batches=2"])
    work = dit_work(made, encodes=False)
    drawn = Schedule(weights_by_period(made.data.buckets, ()), made.seed)
    batches = 2 * 500
    total = sum(work[made.data.buckets[drawn[k][0]].name].model for k in range(batches))
    assert training_flops(made, 500) == pytest.approx(total, rel=1e-6)
    first_bucket, *others = (bucket.name for bucket in made.data.buckets)
    later = Period(100, ((first_bucket, 1.0), *((name, 0.0) for name in others)))
    stage = dataclasses.replace(made.dit_stage, curriculum=(later,))
    changed = dataclasses.replace(made, dit_stage=stage)
    first, rest = training_flops(made, 100), training_flops(changed, 500)
    assert rest - first == pytest.approx(2 * 400 * work[made.data.buckets[0].name].model)
    assert training_flops(changed, 60) == pytest.approx(0.6 * first)
