"""Anti-aliased drawing of shapes and boxes on all frames of a clip at once.

Frames are square. Lengths are in world units, of which the frame is one high and one wide, so a
picture has no pixel size of its own; x goes to the right and y down.
"""

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.world.render import DISTANCES
from sora_jax.world.scene import EXTENT, PALETTE, Colour, Shape

BACKGROUND = (0.10, 0.10, 0.12)
GREY = (0.55, 0.55, 0.55)
"""Of things that are no objects. It looks like half a white, so it stands in no frame with one."""

Canvas = Float[np.ndarray, "t h w 3"]
Cover = Float[np.ndarray, "t h w"]


def blank(frames: int, size: int) -> Canvas:
    """Empty frames of size x size pixels, float32 in [0, 1]."""
    return np.tile(np.array(BACKGROUND, np.float32), (frames, size, size, 1))


def shape_cover(
    shape: Shape, centres: Float[np.ndarray, "t 2"], radius: float | np.ndarray, size: int
) -> Cover:
    """How much of each pixel the shape covers, from 0 to 1. `radius` is that of the disc of equal
    area, one for the clip or one for each frame [t]."""
    place = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.asarray(centres, np.float32).T[:, :, None, None]
    radii = np.broadcast_to(np.asarray(radius, np.float32), len(centres))[:, None, None]
    dx, dy = place[None, None, :] - x, place[None, :, None] - y
    distance = DISTANCES[shape](dx / radii, dy / radii, EXTENT[shape]) * radii
    return np.clip(0.5 - distance * size, 0, 1)


def box_cover(low: Float[np.ndarray, "t 2"], high: Float[np.ndarray, "t 2"], size: int) -> Cover:
    """Exactly how much of each pixel the box between two corners covers."""
    edge = np.arange(size) / size
    spans = np.minimum(high[..., None], edge + 1 / size) - np.maximum(low[..., None], edge)
    x, y = (np.clip(spans, 0, None) * size).astype(np.float32).transpose(1, 0, 2)
    return y[:, :, None] * x[:, None, :]


def lay(canvas: Canvas, cover: Cover, colour: np.ndarray | tuple[float, float, float]) -> None:
    """Lay a colour, RGB [3] or one for each frame [t, 3], over what is there, in place."""
    paint = np.asarray(colour, np.float32)
    if paint.ndim == 2:
        paint = paint[:, None, None]
    canvas += cover[..., None] * (paint - canvas)


def draw(
    canvas: Canvas,
    shape: Shape,
    colour: Colour,
    centres: Float[np.ndarray, "t 2"],
    radius: float | np.ndarray,
) -> None:
    """Draw one shape of a palette colour on every frame, in place."""
    lay(canvas, shape_cover(shape, centres, radius, canvas.shape[1]), PALETTE[colour])


def pixels(canvas: Canvas) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames in whole numbers from 0 to 255."""
    return np.asarray(np.clip(canvas * 255 + 0.5, 0, 255), np.uint8)
