"""Rotary position embedding over continuous (time, y, x) coordinates (arXiv:2104.09864).

Coordinates are data, never derived from an array's shape: the frame rate, the aspect ratio and
tokens appended with times of their own need no code.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


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
