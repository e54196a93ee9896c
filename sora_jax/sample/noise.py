"""A clip's noise: its own, or that of a larger clip averaged down, so that the two come out alike.

Noise of a grid of cells is white noise, integrated over each cell (arXiv:2404.03763). That over a
larger cell is the sum of those that it covers, divided by the root of their number: of unit
variance, and independent of its neighbours. Where an edge cuts a cell of the larger grid, into
shares a and 1 - a, the integrals over the two pieces are drawn given their sum x,

    a x + sqrt(a (1 - a)) w   and   (1 - a) x - sqrt(a (1 - a)) w,   w ~ N(0, 1)           (1)

so that any ratio keeps both. Axes are averaged one after another, in latent cells. In time a clip's
first latent frame, which stands for frame 0 alone, is that of the larger one.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sora_jax.diffusion.path import token_noise
from sora_jax.models.patches import Grid, patchify, unpatchify
from sora_jax.sample.requests import MAX_SEED

Matrix = Float[np.ndarray, "m n"]


def clip_noise(
    key: PRNGKeyArray,
    seed: Int[Array, " b"],
    shape: tuple[int, int],
    grid: Grid,
    of: Grid | None,
    patch: int,
) -> Float[Array, "b n p"]:
    """Noise of rows of `shape` (tokens, channels of a token) whose first tokens are clips of
    `grid`: keyed by (key, seed, token), or averaged from that of clips of the grid `of`, which has
    as many cells on each axis, or more.

    The larger noise is in memory for a moment: 4 bytes for each of its numbers, 69 MB a row for 129
    frames of 1088 x 1920 pixels at 16 channels a cell of 4 x 8 x 8.
    """
    noise = token_noise(key, seed, *shape)
    if of is None:
        return noise
    cells: Any = unpatchify(token_noise(key, seed, of.tokens, shape[1]), of, patch)
    targets = (grid.frames, grid.height * patch, grid.width * patch)
    for axis, target in enumerate(targets, 1):
        # No seed is as large, so that this noise is no clip's.
        own = jax.random.fold_in(key, np.uint32(MAX_SEED + axis))
        cells = _averaged(cells, axis, target, own, seed)
    averaged = patchify(cells, patch)
    return jnp.concatenate([averaged, noise[:, grid.tokens :]], 1)


def _averaged(
    cells: Float[Array, "b t h w c"], axis: int, target: int, key: PRNGKeyArray, seed: Array
) -> Float[Array, "b t2 h2 w2 c"]:
    """Noise of `target` cells along an axis: 1 is time."""
    if cells.shape[axis] == target:
        return cells
    kept, drawn = _shares(cells.shape[axis], target, begins_alone=axis == 1)
    averaged = _along(axis, kept, cells)
    if drawn.shape[1]:
        shape = (*cells.shape[1:axis], drawn.shape[1], *cells.shape[axis + 1 :])
        fresh = token_noise(key, seed, math.prod(shape[:-1]), shape[-1])
        averaged += _along(axis, drawn, fresh.reshape(-1, *shape))
    return averaged


def _along(axis: int, matrix: Matrix, cells: Array) -> Array:
    """The matrix times an axis of cells, in float32 also where matmuls are less by default."""
    return jnp.moveaxis(
        jnp.tensordot(matrix.astype("float32"), cells, (1, axis), precision="highest"), 0, axis
    )


def _shares(size: int, target: int, *, begins_alone: bool) -> tuple[Matrix, Matrix]:
    """Matrices from noise of `size` cells, and from w of each that is cut, to that of `target`."""
    if begins_alone:
        first = np.eye(1, size)
        if target == 1:
            return first, np.zeros((1, 0))
        kept, drawn = _shares(size - 1, target - 1, begins_alone=False)
        return np.vstack([first, np.pad(kept, ((0, 0), (1, 0)))]), np.pad(drawn, ((1, 0), (0, 0)))
    low, high = (np.arange(target)[:, None] + end for end in (0, 1))
    begin, end = (np.arange(size) + end for end in (0, 1))
    # In cells of a grid that divides both, so that shares of whole cells are 1 exactly.
    covered = np.minimum(high * size, end * target) - np.maximum(low * size, begin * target)
    share = np.maximum(covered, 0) / target
    pieces = np.sqrt(share * (1 - share))
    pieces = pieces[:, pieces.any(0)]
    sign = np.where(np.arange(target)[:, None] == (pieces > 0).argmax(0), 1.0, -1.0)
    count = math.sqrt(size / target)
    return share / count, sign * pieces / count
