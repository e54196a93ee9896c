"""Convolutions of videos [b t h w c] by kernels of 3 x 3 cells, as fast as the device has them."""

import itertools

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from sora_jax.sharding.mesh import device_kind

PICTURES = ("NHWC", "HWIO", "NHWC")


def convolve_causally(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "f 3 3 i o"],
    before: Float[Array, "b p h w i"] | None,
) -> Float[Array, "b t h w o"]:
    """Convolution of every frame and the f - 1 before it, with zeros around each.

    `before`: the f - 1 frames before the first, or None at the start of a clip, which is as zeros
    there, and less work. On CPU it is a sum of convolutions of pictures, one for each frame of the
    kernel: XLA's three-dimensional one takes twice as long there.
    """
    past = kernel.shape[0] - 1
    if device_kind() != "cpu":
        return jax.lax.conv_general_dilated(
            x if before is None else jnp.concatenate([before, x], 1),
            kernel,
            window_strides=(1, 1, 1),
            padding=((past if before is None else 0, 0), (1, 1), (1, 1)),
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
    y = convolve_pictures(x, kernel[past])
    for age in range(1, past + 1):
        if before is not None:
            older = jnp.concatenate([before[:, past - age :], x], 1)[:, : x.shape[1]]
            y = y + convolve_pictures(older, kernel[past - age])
        elif x.shape[1] > age:
            of_older = convolve_pictures(x[:, :-age], kernel[past - age])
            y = y + jnp.pad(of_older, ((0, 0), (age, 0), *((0, 0),) * 3))
    return y


def convolve_pictures(
    x: Float[Array, "b t h w i"],
    kernel: Float[Array, "y x i o"],
    *,
    stride: int = 1,
    padding: tuple[int, int] = (1, 1),
) -> Float[Array, "b t g v o"]:
    """Convolution of every frame, with so many zeros before and behind its rows and columns."""
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        (stride,) * 2,
        (padding,) * 2,
        dimension_numbers=PICTURES,
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def convolve_upsampled(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b t 2*h 2*w o"]:
    """Convolution of every frame after each of its cells became 2 x 2 alike.

    Of the three cells under a kernel's row two are alike, so that each of the four places in a cell
    has a kernel of 2 x 2 sums: 16 products for 36.
    """
    places = []
    for down, right in itertools.product(range(2), range(2)):
        small = _halves(_halves(kernel, down).swapaxes(0, 1), right).swapaxes(0, 1)
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[2:]),
            small,
            (1, 1),
            ((1 - down, down), (1 - right, right)),
            dimension_numbers=PICTURES,
        )
        places.append(y.reshape(*x.shape[:4], -1))
    return rearrange(places, "(p q) b t h w o -> b t (h p) (w q) o", p=2)


def _halves(kernel: Array, place: int) -> Array:
    """What the cell itself and its neighbour are multiplied by, of three in a row: of the first
    place in a cell the neighbour before, of the second the one behind."""
    first, middle, last = kernel
    return jnp.stack([first + middle, last] if place else [first, middle + last])
