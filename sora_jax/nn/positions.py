"""Where a token stands, from continuous (time, y, x) coordinates: rotary angles and a place.

Coordinates are data, never derived from an array's shape: the frame rate, the aspect ratio and
tokens appended with times of their own need no code. Rotary angles (arXiv:2104.09864) tell how far
tokens are from each other in all three; the place tells where in the picture one is, which rotation
alone never does. Nothing tells when in a clip one is: any clip may go on.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.nn.layers import Linear


def axis_pairs(head_width: int) -> tuple[int, int, int]:
    """How many of the head's rotation pairs turn with time, y and x: thirds, the rest to time."""
    third = head_width // 2 // 3
    return head_width // 2 - 2 * third, third, third


def rotary_angles(
    coordinates: Float[Array, "b n 3"], head_width: int, theta: float
) -> Float[Array, "b n a"]:
    """Angle of each rotation pair, a = head_width / 2. The slowest pair of an axis turns by
    1/theta radians a unit."""
    angles = [
        coordinates[..., axis, None] * theta ** (-jnp.arange(pairs) / max(pairs - 1, 1))
        for axis, pairs in enumerate(axis_pairs(head_width))
    ]
    return jnp.concatenate(angles, -1)


def rotate(x: Float[Array, "b n h k"], angles: Float[Array, "b n a"]) -> Float[Array, "b n h k"]:
    """Turns pair i, made of channels i and i + k/2, by its angle."""
    cosine = jnp.cos(angles)[:, :, None].astype(x.dtype)
    sine = jnp.sin(angles)[:, :, None].astype(x.dtype)
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)


class PlaceEmbedding(nnx.Module):
    """(y, x) in patches from the picture's centre -> a vector: sinusoids with periods from 2 to 512
    patches (arXiv:2006.10739), then a linear map."""

    num_periods = 9

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear = Linear(4 * self.num_periods, width, ("features", "embed"), rngs=rngs)

    def __call__(self, place: Float[Array, "b n 2"]) -> Float[Array, "b n d"]:
        phase = place[..., None] * (jnp.pi / 2.0 ** jnp.arange(self.num_periods))
        phase = phase.reshape(*place.shape[:-1], -1)
        return self.linear(jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1))
