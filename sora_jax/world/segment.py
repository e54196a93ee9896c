"""Pixels to blobs: where in each frame an object of a palette colour stands, and how far it covers
each pixel.

A pixel is read as background + amount * (palette colour - background): its palette colour is that
of the smallest angle as seen from the background, and the amount is the projection on it. A frame
with an object's worth of visible pixels that belong to no blob of a palette colour, with a
half-faded blob, or without a dark background is unreadable.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sora_jax.world.scene import PALETTE, SIZE_RADIUS, Colour

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

COLOURS: tuple[Colour, ...] = tuple(PALETTE)
DARK = 0.33
"""No channel of a background pixel is brighter."""
LEAST_DARK = 0.3
"""Share of dark pixels below which a frame has no background to stand out from."""
SOLID = 0.5
"""Amount of a palette colour from which a pixel belongs to the body of a blob."""
LEAST_PEAK = 0.7
"""A blob whose solid pixels do not reach this amount is half faded, and not an object."""
LEAST_AREA = 0.5 * math.pi * SIZE_RADIUS["small"] ** 2
"""Half a small object, in world units squared. Anything smaller is a speck."""
VISIBLE = 0.35
"""Distance of a pixel from the background, in RGB, from which it must belong to something."""
OFF_COLOUR = 0.3
"""Distance from the palette colour's ray, over the amount, beyond which a pixel is unexplained."""
OFF_BLOB_COLOUR = 0.2
"""The same for the mean colour of a blob: the sine of the angle to the palette colour."""
MARGIN = 2
"""Pixels around its solid part that may still hold a blob's soft edge."""


@dataclass(frozen=True, eq=False)
class Blob:
    """A patch of one colour in one frame: area and centroid (x, y) in pixels, and the amounts [h,
    w] behind them."""

    colour: Colour
    area: float
    centroid: tuple[float, float]
    amount: Floats


def find_blobs(frame: Floats, unit: float) -> tuple[Blob, ...] | None:
    """The blobs of a frame [h, w, 3] in [0, 1], `unit` pixels to the world unit; None where it is
    unreadable."""
    dark = frame.max(axis=-1) < DARK
    if dark.mean() < LEAST_DARK:
        return None
    least = LEAST_AREA * unit**2
    base = frame[dark].mean(axis=0)
    excess = _without_background(frame - base)
    rays = np.array([PALETTE[colour] for colour in COLOURS], np.float32) - base
    amounts = excess @ (rays / (rays**2).sum(axis=-1, keepdims=True)).T
    lengths = np.linalg.norm(rays, axis=-1)
    nearest = (amounts * lengths).argmax(axis=-1)
    amount = np.take_along_axis(amounts, nearest[..., None], axis=-1)[..., 0]
    strength = np.linalg.norm(excess, axis=-1)
    off = np.sqrt(np.maximum(strength**2 - (amount * lengths[nearest]) ** 2, 0.0))
    explained = off < OFF_COLOUR * np.maximum(amount, 0.35)
    solid = explained & (amount > SOLID)
    bodies = [
        (int(index), body)
        for index in np.unique(nearest[solid])
        for body in _components(solid & (nearest == index))
        if body.sum() > 0.6 * least
    ]
    blobs = []
    unclaimed = strength > VISIBLE
    for index, body in bodies:
        others = [_dilate(other) for _, other in bodies if other is not body]
        region = _dilate(body, MARGIN)
        if others:
            region &= body | ~np.any(others, axis=0)
        own = np.where(region, amounts[..., index], 0.0)
        if own.sum() < least:
            continue
        core = excess[body & (own >= np.median(own[body]))].mean(axis=0)
        along = float(core @ rays[index]) / float(lengths[index])
        if along < LEAST_PEAK * lengths[index] or (
            np.linalg.norm(core) ** 2 - along**2 > (OFF_BLOB_COLOUR * np.linalg.norm(core)) ** 2
        ):
            return None
        blobs.append(_measure(COLOURS[index], own))
        unclaimed &= ~(region & explained)
    return tuple(blobs) if unclaimed.sum() < least else None


def _measure(colour: Colour, amount: Floats) -> Blob:
    area = float(amount.sum())
    x = float(amount.sum(axis=0) @ (np.arange(amount.shape[1]) + 0.5)) / area
    y = float(amount.sum(axis=1) @ (np.arange(amount.shape[0]) + 0.5)) / area
    return Blob(colour, area, (x, y), amount)


def _without_background(excess: Floats) -> Floats:
    """The frame [h, w, 3] less a quadratic in x and y through its background pixels."""
    height, width = excess.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    free = np.linalg.norm(excess, axis=-1) < 0.12
    design = terms[free]
    if len(design) < 4 * terms.shape[-1]:
        return excess
    gram = design.T @ design + 1e-3 * np.eye(terms.shape[-1], dtype=np.float32)
    smooth: Floats = terms @ np.linalg.solve(gram, design.T @ excess[free])
    return excess - smooth


def _components(mask: Bools) -> Iterator[Bools]:
    """The connected parts of a mask [h, w], by flooding from one pixel after another."""
    rest = mask.copy()
    while rest.any():
        part = np.zeros_like(mask)
        part[np.unravel_index(rest.argmax(), mask.shape)] = True
        while True:
            grown = _dilate(part) & mask
            if (grown == part).all():
                break
            part = grown
        yield part
        rest &= ~part


def _dilate(mask: Bools, times: int = 1) -> Bools:
    """The mask grown by one pixel up, down, left and right."""
    for _ in range(times):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask
