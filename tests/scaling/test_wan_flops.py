"""FLOPs of the Wan 2.1 autoencoder agree with XLA's count of its programs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig
from sora_jax.scaling.flops import vae_again_flops, vae_chunk_flops, vae_flops, vae_train_flops
from tests.scaling.test_flops import array, xla_flops

# Widths at which matmuls outweigh the elementwise work, which XLA counts and we do not.
CONFIG = WanVAEConfig(channels=8, width=32, multipliers=(1, 2), halve_frames=(True,), blocks=1)
HEIGHT, WIDTH = 24, 16
SHAPES = jax.eval_shape(lambda: WanVAE(CONFIG, rngs=nnx.Rngs(0)))


def clip(frames: int) -> Any:
    return array(1, frames, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("frames", [1, 5])
def test_forward_agrees_with_xla(frames: int) -> None:
    encode, decode = vae_flops(CONFIG, frames, HEIGHT, WIDTH)
    latents = array(1, (frames - 1) // 2 + 1, HEIGHT // 2, WIDTH // 2, CONFIG.channels)
    assert xla_flops(WanVAE.encode, SHAPES, clip(frames)) == pytest.approx(encode, rel=0.03)
    assert xla_flops(WanVAE.decode, SHAPES, latents) == pytest.approx(decode, rel=0.03)


def test_training_agrees_with_xla() -> None:
    def loss(vae: WanVAE, video: Any) -> Any:
        return jnp.mean(jnp.square(vae.decode(vae.encode(video)[0])))

    counted = vae_train_flops(CONFIG, 3, HEIGHT, WIDTH)
    assert xla_flops(jax.grad(loss), SHAPES, clip(3)) == pytest.approx(counted, rel=0.05)


def test_what_is_computed_again_is_the_first_convolution_of_every_block() -> None:
    again = dataclasses.replace(CONFIG, recompute=True)
    counted = vae_again_flops(again, 5, HEIGHT, WIDTH)
    forward = sum(vae_flops(CONFIG, 5, HEIGHT, WIDTH))
    assert 0.3 * forward < counted < 0.5 * forward
    assert vae_again_flops(CONFIG, 5, HEIGHT, WIDTH) == 0


def test_chunks_are_as_much_work_as_the_clip() -> None:
    first = vae_chunk_flops(CONFIG, 3, HEIGHT, WIDTH, first=True)
    next_one = vae_chunk_flops(CONFIG, 2, HEIGHT, WIDTH, first=False)
    at_once = vae_flops(CONFIG, 9, HEIGHT, WIDTH)
    assert tuple(a + b for a, b in zip(first, next_one, strict=True)) == at_once


def test_a_size_that_does_not_halve_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 \+ 2k frames"):
        vae_flops(CONFIG, 2, HEIGHT, WIDTH)
