"""Attention over split tokens equals attention on one device, by every method and on every mesh."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from sora_jax.config import ConfigError
from sora_jax.nn import kernels
from sora_jax.nn.attention import AttentionConfig, attend
from sora_jax.nn.block_sizes import Blocks
from sora_jax.nn.context import Between
from sora_jax.nn.kernels import KernelName
from sora_jax.sharding.mesh import MeshConfig, make_mesh

ROWS, TOKENS, HEADS, WIDTH = 4, 24, 8, 8
MESHES = [(1, 8, 1, 1), (2, 2, 2, 1), (1, 2, 4, 1), (1, 2, 2, 2), (2, 4, 1, 1), (1, 1, 8, 1)]


def inputs(tokens: int = TOKENS, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Queries, keys, values and an upstream gradient that is zero at padding; and segments of
    several lengths, in mixed order, in every row."""
    generator = np.random.default_rng(0)
    arrays = generator.standard_normal((4, ROWS, tokens, HEADS, width)).astype(np.float32)
    segments = generator.integers(0, 4, (ROWS, tokens)).astype(np.int32)
    segments[0] = np.sort(segments[0])[::-1]  # in order, and padding behind
    segments[1] = 1
    arrays[3] *= (segments != 0)[..., None, None]
    return arrays, segments


def result(
    config: AttentionConfig, mesh: Any, arrays: np.ndarray, segments: np.ndarray
) -> list[np.ndarray]:
    """Output where there is a token, and the three gradients."""
    query, key, value, upstream = map(jnp.asarray, arrays)

    @jax.jit
    def run(query: Any, key: Any, value: Any) -> Any:
        out, pullback = jax.vjp(
            lambda *x: attend(*x, jnp.asarray(segments), jnp.asarray(segments), config),
            query,
            key,
            value,
        )
        return out, pullback(upstream)

    with jax.set_mesh(mesh):
        out, gradients = run(query, key, value)
    return [np.where((segments != 0)[..., None, None], out, 0), *map(np.asarray, gradients)]


@functools.cache
def expected() -> list[np.ndarray]:
    return result(AttentionConfig(), make_mesh(MeshConfig(), jax.devices()[:1]), *inputs())


def methods(context: int, heads_a_device: int) -> list[AttentionConfig]:
    """Every way between all-gathered keys and all traded heads, and the ring likewise."""
    ways = [u for u in (1, 2, 4, 8) if context % u == 0 and heads_a_device % u == 0]
    return [
        AttentionConfig(context=between, ulysses=u) for between in ("gather", "ring") for u in ways
    ]


@pytest.mark.parametrize("sizes", MESHES)
def test_every_method_on_every_mesh_equals_one_device(sizes: tuple[int, int, int, int]) -> None:
    mesh = make_mesh(MeshConfig(*sizes))
    for config in methods(sizes[2], HEADS // sizes[3]):
        found = result(config, mesh, *inputs())
        for wanted, array in zip(expected(), found, strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5, err_msg=str(config))


SMALL = Blocks(128, 256, 128, 128, "values", 128, 256, 128)


@pytest.mark.parametrize(
    ("kernel", "between", "ulysses", "blocks"),
    [
        ("flash", "gather", 1, SMALL),
        ("flash", "gather", 1, dataclasses.replace(SMALL, hold="weights")),
        ("flash", "gather", 2, None),
        ("flash", "ring", 1, SMALL),
        ("splash", "gather", 1, SMALL),
    ],
)
def test_kernels_equal_the_reference(
    kernel: KernelName,
    between: Between,
    ulysses: int,
    blocks: Blocks | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interpreted on CPU. Tokens are no multiple of a block, so some are padded; some blocks share
    no segment, and are skipped."""
    arrays, segments = inputs(tokens=300, width=128)
    segments[0] = np.repeat([1, 2, 3, 0], 75)
    interpreted = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", interpreted)
    make = functools.partial(kernels.splash.make_splash_mha, interpret=True)
    monkeypatch.setattr(kernels.splash, "make_splash_mha", make)
    config = AttentionConfig(kernel, between, ulysses, blocks=blocks)
    mesh = make_mesh(MeshConfig(1, 2, 2, 2))
    found = result(config, mesh, arrays, segments)
    wanted = result(AttentionConfig(), mesh, arrays, segments)
    for array, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(array, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "tensor", "message"),
    [
        (AttentionConfig(ulysses=3), 1, "ulysses=3 does not divide mesh.context=4"),
        (AttentionConfig(ulysses=4), 4, "needs whole heads on every device"),
    ],
)
def test_heads_that_cannot_be_traded_are_refused(
    config: AttentionConfig, tensor: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.check(heads=HEADS, context=4, tensor=tensor)


def test_a_ring_needs_a_kernel_in_two_halves() -> None:
    with pytest.raises(ConfigError, match="context=ring computes by kernel=reference or flash"):
        AttentionConfig(kernel="splash", context="ring")
