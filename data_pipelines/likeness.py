"""Whether two clips are one: re-encoded, trimmed, rescaled, cropped, mirrored or slowed.

A clip is known by grey thumbnails of 32 x 32, each the mean of all frames of a quarter of a second
or more: where a copy is trimmed between two of them, pictures of single moments would show another
moment of the motion in every one, and averages share most of their frames. Two clips are compared
along every line of time that may lead through both: an offset, in halves of a thumbnail, and a
rate. Where the best line of all covers at least half of the shorter clip, and the thumbnails on it
correlate, the clips are one. The best line of two parts of one slow shot covers little of either,
so these stay two.

Clips worth comparing are found by keys: parts of a perceptual hash (pHash, the signs of the lowest
frequencies) of a few thumbnails, whole, cropped and mirrored, so that copies share some key.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8

from data_pipelines.shots import Clip

SIDE = 32
COMPARED = 16  # pixels a side that crops of thumbnails are averaged to
MOST_THUMBNAILS = 16  # of a clip; for a longer one they are farther apart
RATES = (1.0, 0.5, 2.0, 2 / 3, 1.5)  # seconds of one clip in a second of the other
LEAST_COVERED = 0.5  # of the shorter clip
LEAST_ON_A_LINE = 2  # thumbnails, unless a clip has fewer
ALIKE = 0.93  # mean correlation along the line
INSETS = (0.0, 0.05, 0.1)  # of a side that a crop may have taken off
KEYED = 8  # thumbnails of a clip that keys are made of, evenly spaced
BANDS = 4  # keys of a thumbnail, of 16 bits each


@dataclasses.dataclass(frozen=True)
class Signature:
    """What is kept of a clip to compare it by."""

    thumbnails: UInt8[np.ndarray, "n s s"]
    seconds: float  # between them

    @classmethod
    def parse(cls, stored: bytes, seconds: float) -> "Signature":
        return cls(np.frombuffer(stored, np.uint8).reshape(-1, SIDE, SIDE), seconds)


def signature(clip: Clip) -> Signature:
    """Thumbnails of a clip whose bars are cut off, as many as allowed, and evenly spaced."""
    import cv2

    stride = 1
    while len(clip.averages) > MOST_THUMBNAILS * stride:
        stride *= 2
    thumbnails = np.stack(
        [
            cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for picture in clip.averages
        ]
    )
    longer = np.rint(_grouped(thumbnails, stride)).astype(np.uint8)
    return Signature(longer, clip.seconds * stride)


def keys(clip: Signature) -> Iterator[bytes]:
    """Keys of which copies of a clip share at least one, nearly always."""
    chosen = np.unique(np.linspace(0, len(clip.thumbnails) - 1, KEYED).astype(int))
    even = np.arange(len(INSETS)) * (len(INSETS) + 1)  # crops of as much on both sides
    crops = _cropped(clip.thumbnails[chosen].astype(np.float32), _cuts()[even])[even]
    bits = phash(crops.reshape(-1, COMPARED, COMPARED))
    packed = np.packbits(bits.reshape(len(bits), BANDS, -1), axis=-1)
    yield from sorted(
        {bytes([band]) + part.tobytes() for each in packed for band, part in enumerate(each)}
    )


def phash(pictures: Float[np.ndarray, "n s s"]) -> Bool[np.ndarray, "m 64"]:
    """Perceptual hashes of pictures, and then of these mirrored: which of the 8 x 8 lowest
    frequencies are above their median. A mirror turns the sign of every other column.
    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010."""
    from scipy import fft

    lowest = fft.dctn(pictures, axes=(1, 2))[:, :8, :8]
    both = np.concatenate([lowest, lowest * (-1.0) ** np.arange(8)]).reshape(-1, 64)
    return both > np.median(both, axis=1, keepdims=True)


def alike(one: Signature, other: Signature) -> float:
    """Mean correlation of two clips along the line of time that fits them best, from 0 to 1; 0 if
    that line covers less than half of the shorter one.

    As soon as it is enough for the clips to be one, nothing better is looked for.
    """
    longer = max(one.seconds, other.seconds)
    strides = [max(1, round(longer / clip.seconds)) for clip in (one, other)]
    first, second = (
        _grouped(clip.thumbnails, stride)
        for clip, stride in zip((one, other), strides, strict=True)
    )
    ratio = round(one.seconds * strides[0] / (other.seconds * strides[1]), 2)
    first, second = _smooth(first), _halves(second)
    best = 0.0
    # Whole beside whole, then crops of the one beside the other, and of the other beside the one.
    whole = _cuts()[:1]
    for firsts, seconds in ((whole, whole), (_cuts(), whole), (whole, _cuts())):
        # The side with fewer cuts is the one that is mirrored: it costs less.
        these = _normal(_cropped(_mirrored(first) if firsts is whole else first, firsts))
        those = _normal(_cropped(second if firsts is whole else _mirrored(second), seconds))
        best = max(best, _along_lines(_products(these, those, len(first), len(second)), ratio))
        if best >= ALIKE:
            return best
    return best


def _mirrored(thumbnails: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, "b s s"]:
    """Thumbnails as they are, and then mirrored."""
    return np.concatenate([thumbnails, thumbnails[..., ::-1]])


def _products(
    these: Float[np.ndarray, "k i d"], those: Float[np.ndarray, "l j d"], n: int, m: int
) -> Float[np.ndarray, "c n m"]:
    """Of every way of n thumbnails with every way of m, in one product of matrices."""
    size = these.shape[-1]
    products = these.reshape(-1, size) @ those.reshape(-1, size).T
    return products.reshape(-1, n, products.shape[1] // m, m).swapaxes(1, 2).reshape(-1, n, m)


def _grouped(thumbnails: UInt8[np.ndarray, "n s s"], stride: int) -> Float[np.ndarray, "g s s"]:
    """Means of so many thumbnails each; what is left at the end is no group unless it is all."""
    groups = max(1, len(thumbnails) // stride)
    whole = thumbnails[: groups * stride].astype(np.float32)
    return whole.reshape(groups, -1, *whole.shape[1:]).mean(1)


def _smooth(thumbnails: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, "n s s"]:
    """Each with an eighth of both neighbours: spread over time as the means of two are that stand
    between in `_halves`, so that these compare with them too."""
    padded = np.pad(thumbnails, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return 0.75 * thumbnails + 0.125 * (padded[:-2] + padded[2:])


def _halves(thumbnails: Float[np.ndarray, "n s s"]) -> Float[np.ndarray, "m s s"]:
    """Thumbnails twice as close in time: smooth ones, and between each two their mean."""
    between = (thumbnails[1:] + thumbnails[:-1]) / 2
    both = np.empty((2 * len(thumbnails) - 1, *thumbnails.shape[1:]), np.float32)
    both[::2], both[1::2] = _smooth(thumbnails), between
    return both


def _along_lines(products: Float[np.ndarray, "k n m"], ratio: float) -> float:
    """The best mean along a line of time, over all crops, as `alike` counts it."""
    lines, covered = _lines(*products.shape[1:], ratio)
    means = products.reshape(len(products), -1) @ lines
    valid = covered[means.argmax(1)] >= LEAST_COVERED
    return float(np.max(means.max(1), where=valid, initial=0.0))


def _cropped(
    thumbnails: Float[np.ndarray, "n s s"], cuts: Float[np.ndarray, "c p s"]
) -> Float[np.ndarray, "k n d"]:
    """Thumbnails cut in every way in height and width, averaged to 16 x 16."""
    count, ways = len(thumbnails), len(cuts)
    flat = cuts.reshape(-1, SIDE)
    across = (thumbnails.reshape(-1, SIDE) @ flat.T).reshape(count, SIDE, -1)
    both = (across.swapaxes(1, 2).reshape(-1, SIDE) @ flat.T).reshape(
        count, ways, COMPARED, ways, COMPARED
    )
    return both.transpose(1, 3, 0, 4, 2).reshape(ways**2, count, -1)


@functools.cache
def _cuts() -> Float[np.ndarray, "k c s"]:
    """For every crop of a line of pixels, the share of each in each pixel of the crop."""
    cuts = []
    for before, after in itertools.product(INSETS, repeat=2):
        edges = np.linspace(before * SIDE, SIDE - after * SIDE, COMPARED + 1)
        starts, ends = edges[:-1, None], edges[1:, None]
        pixels = np.arange(SIDE)
        overlap = np.clip(np.minimum(ends, pixels + 1) - np.maximum(starts, pixels), 0, None)
        cuts.append(overlap / overlap.sum(1, keepdims=True))
    return np.asarray(cuts, np.float32)


@functools.lru_cache(maxsize=64)
def _lines(
    n: int, m: int, ratio: float
) -> tuple[Float[np.ndarray, "nm l"], Float[np.ndarray, " l"]]:
    """Lines of time through n thumbnails and m that are twice as close, as the weights that give
    the mean along each, and the share of the shorter clip that each covers. `ratio`: seconds
    between thumbnails of the first clip, over those of the second."""
    weights, covered = [], []
    for rate in RATES:
        at, step = np.arange(n), 2 * rate * ratio
        for offset in range(-round(step * (n - 1)), m):
            there = np.round(offset + step * at).astype(int)
            inside = (there >= 0) & (there < m)
            count = int(inside.sum())
            if count < min(LEAST_ON_A_LINE, n, (m + 1) // 2):
                continue
            line = np.zeros((n, m), np.float32)
            line[at[inside], there[inside]] = 1 / count
            weights.append(line.reshape(-1))
            covered.append(count / min(n, (m + 1) / step))
    return np.stack(weights, 1), np.asarray(covered)


def _normal(flat: Float[np.ndarray, "*k n d"]) -> Float[np.ndarray, "*k n d"]:
    """Thumbnails of mean 0 and length 1, so that products are correlations. Flat ones are 0."""
    centred = flat - flat.mean(-1, keepdims=True)
    length = np.sqrt(np.einsum("...d,...d->...", centred, centred))[..., None]
    level = np.sqrt(flat.shape[-1])  # length of a picture that deviates by one level of 255
    centred *= np.where(length > level, 1 / np.maximum(length, 1e-6), 0.0)
    return centred
