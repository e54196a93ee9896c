"""FLOPs of the autoencoder's training agree with the program of its loss and gradient."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.scaling.flops import vae_again_flops, vae_flops, vae_train_flops
from sora_jax.train.step import Moment
from sora_jax.train.vae_losses import VAELossConfig, vae_loss
from sora_jax.types import VideoBatch
from tests.scaling.test_flops import (
    HEIGHT,
    VIDEO_AUTOENCODER,
    WIDTH,
    array,
    traced_flops,
    xla_flops,
)

LOSS = vae_loss(VAELossConfig())


def training_program(config: VAEConfig, frames: int) -> tuple[Any, ...]:
    model = jax.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))
    batch = VideoBatch(
        video=array(1, frames, HEIGHT, WIDTH, 3, dtype=jnp.uint8),
        text=array(1, 4, dtype=jnp.int32),
        fps=array(1),
        example_id=array(1, dtype=jnp.int32),
    )

    def loss(model: VAE, batch: VideoBatch) -> Any:
        return LOSS(model, batch, Moment(jax.random.key(0), 0), 1)[0]

    return jax.value_and_grad(loss), model, batch


@pytest.mark.parametrize("frames", [1, 5])
def test_by_matmul_it_is_exact(frames: int) -> None:
    config = dataclasses.replace(VIDEO_AUTOENCODER, convolution="matmul")
    counted = vae_train_flops(config, frames, HEIGHT, WIDTH)
    assert counted == traced_flops(*training_program(config, frames))
    assert counted < 3 * sum(vae_flops(config, frames, HEIGHT, WIDTH))


@pytest.mark.parametrize("frames", [1, 5])
def test_what_is_computed_again_is_counted(frames: int) -> None:
    config = dataclasses.replace(VIDEO_AUTOENCODER, convolution="matmul", recompute=True)
    counted = vae_train_flops(config, frames, HEIGHT, WIDTH)
    again = vae_again_flops(config, frames, HEIGHT, WIDTH)
    assert counted + again == traced_flops(*training_program(config, frames))
    assert again > 0.1 * counted


def test_it_agrees_with_xla() -> None:
    config = dataclasses.replace(VIDEO_AUTOENCODER, convolution="matmul")
    counted = vae_train_flops(config, 5, HEIGHT, WIDTH)
    assert xla_flops(*training_program(config, 5)) == pytest.approx(counted, rel=0.03)
