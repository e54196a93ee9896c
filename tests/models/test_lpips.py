"""LPIPS: distances and gradients are those of PyTorch, at any size, sharded, and without NaN.

The numbers are of the package `stlpips-pytorch` 0.0.2 on PyTorch 2.13, in float64, with the arrays
and pictures of tests/tiny_lpips.py:

    for stage, width in enumerate(WIDTHS):      # models_lpf.vgg.cfg["D"] and model.lins alike
        ...
    model = stlpips.LPIPS(net="vgg", variant=variant, pretrained=False).eval().double()
    distance = model(first, second)             # variant "vanilla": max; "shift_tolerant": blurred
    distance.sum().backward()                   # SLOPES: abs(first.grad).sum() of each picture
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.errors import UserError
from sora_jax.models.lpips import LEAST_SIDE, LPIPS, Pooling, weight_shapes
from sora_jax.sharding.rules import parameter_shardings
from tests import tiny_lpips
from tests.tiny_lpips import SIZES, pictures

Expected = dict[tuple[Pooling, tuple[int, int]], Sequence[float]]

DISTANCES: Expected = {
    ("max", (32, 32)): (0.05869875, 0.09163292, 0.77991585),
    ("max", (37, 50)): (0.05762223, 0.03364166, 0.89936658),
    ("max", (18, 23)): (0.01439830, 0.07242732, 1.16512193),
    ("blurred", (32, 32)): (0.04998469, 0.08544691, 0.68948751),
    ("blurred", (37, 50)): (0.04985622, 0.03100423, 0.86277318),
    ("blurred", (18, 23)): (0.01040413, 0.06222484, 1.08878646),
}
SLOPES: Expected = {
    ("max", (32, 32)): (2.375644, 2.319002, 4.191913),
    ("max", (37, 50)): (2.960659, 1.961880, 3.868581),
    ("max", (18, 23)): (0.468862, 1.556389, 4.071473),
    ("blurred", (32, 32)): (1.760865, 1.670235, 2.838698),
    ("blurred", (37, 50)): (1.701526, 1.573961, 3.056653),
    ("blurred", (18, 23)): (0.193646, 1.123408, 2.900094),
}


@pytest.fixture(scope="module", params=["max", "blurred"])
def model(request: pytest.FixtureRequest) -> LPIPS:
    return LPIPS(tiny_lpips.arrays(), request.param)


@jax.jit
def distances(model: LPIPS, x: jax.Array, y: jax.Array) -> jax.Array:
    return model(x, y)


@jax.jit
def gradient(model: LPIPS, x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.grad(lambda x: model(x, y).sum())(x)


@pytest.mark.parametrize("size", SIZES)
def test_distances_and_gradients_are_those_of_pytorch(model: LPIPS, size: tuple[int, int]) -> None:
    first, second = pictures(*size)
    np.testing.assert_allclose(
        distances(model, first, second), DISTANCES[model.pooling, size], atol=1e-6
    )
    slopes = np.abs(gradient(model, first, second)).sum((1, 2, 3))
    np.testing.assert_allclose(slopes, SLOPES[model.pooling, size], atol=1e-5)


def test_it_is_a_distance_of_each_pair(model: LPIPS) -> None:
    first, second = pictures(32, 32)
    there, back = distances(model, first, second), distances(model, second, first)
    np.testing.assert_allclose(there, back, atol=1e-6)
    assert np.array_equal(distances(model, first, first), np.zeros(3))
    of_clips = distances(model, np.stack([first, second]), np.stack([second, first]))
    assert of_clips.shape == (2, 3)
    np.testing.assert_allclose(of_clips, [there, back], atol=1e-6)


def test_bfloat16_is_near_and_its_distances_are_float32(model: LPIPS) -> None:
    first, second = (jnp.asarray(each, jnp.bfloat16) for each in pictures(32, 32))
    found = distances(model, first, second)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, DISTANCES[model.pooling, (32, 32)], rtol=2e-2)


def test_gradients_are_finite_where_no_channel_answers(model: LPIPS) -> None:
    silent = {name: -np.abs(array) for name, array in tiny_lpips.arrays().items()}
    first, second = pictures(32, 32)
    first[0] = second[0] = 1.0
    of_silent = gradient(LPIPS(silent, model.pooling), first, second)
    of_equal = gradient(model, first, first)
    assert np.isfinite(of_silent).all()
    assert np.isfinite(of_equal).all()


def test_too_small_a_picture_is_one_sentence(model: LPIPS) -> None:
    least = LEAST_SIDE[model.pooling]
    picture = jnp.zeros((1, least, least - 1, 3))
    with pytest.raises(UserError, match=f"LPIPS of pictures of {least}x{least - 1} pixels"):
        model(picture, picture)
    for of_stage in model.features(jnp.zeros((1, least, least, 3))):
        assert of_stage.size > 0


def test_it_gives_the_same_over_a_mesh() -> None:
    model = LPIPS(tiny_lpips.arrays(), "blurred")
    names = ("replica", "fsdp", "context", "tensor")
    mesh = Mesh(np.array(jax.devices()).reshape(1, 4, 1, 2), names)
    split = jax.device_put(model, parameter_shardings(model, mesh))
    kernel = split.stages[1][0].kernel[...]
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 3, 2, 6)
    first, second = pictures(32, 32)
    with jax.set_mesh(mesh):
        found = distances(split, first, second)
    np.testing.assert_allclose(found, DISTANCES["blurred", (32, 32)], atol=1e-6)


def test_it_is_as_large_as_vgg16() -> None:
    convolutions = [np.prod(s) for name, s in weight_shapes().items() if name.startswith("conv")]
    assert sum(convolutions) == 14_714_688  # torchvision's VGG16 without its classifier
    zeros = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes().items()}
    parameters = jax.tree.leaves(nnx.state(LPIPS(zeros, "max"), nnx.Param))
    assert sum(each.size for each in parameters) == 14_714_688 + 64 + 128 + 256 + 2 * 512
