"""Buckets of every shape, duration and resolution that share a few classes of equal cost.

Resolutions are tokens a picture, not pixels a side: pictures of any aspect ratio that have about as
many tokens are one length of row. Where resolutions and durations are multiples of each other, many
pairs of them are one length too: three resolutions in steps of 2 and the durations 1, 4, 8, 16 and
32 have eight lengths, not fifteen.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from sora_jax.data.buckets import Bucket, ShapeClass
from sora_jax.errors import ConfigError

ASPECT_RATIOS = (9 / 21, 9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9, 21 / 9)  # width / height
MOST_PADDING = 0.04  # share of a row that a picture may leave empty
NATIVE_PADDING = (0.04, 0.06, 0.08, 0.1)  # the same of pictures of any aspect ratio, tried in turn
BLOCKS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)  # tokens that a kernel holds at once
MOST_ROUNDING = 0.015  # share of a row added for whole blocks
MOST_UNEQUAL = 1.3  # cost of the dearest class beside the cheapest
MOST_MULTIPLES = 64
MORE_PARTS = 4  # than the fewest, tried for a number of rows nearer to the wanted one


def picture_sizes(tokens: int, ratios: Sequence[float] = ASPECT_RATIOS) -> list[tuple[int, int]]:
    """(height, width) in patches of the picture nearest to each aspect ratio, among those that have
    at most `tokens` patches and at most 4 % fewer.

    Raises:
        ConfigError: there is none, for so few tokens or so long a picture.
    """
    sizes = []
    for ratio in ratios:
        fitting = []
        for height in range(1, tokens + 1):
            width = tokens // height
            if height * width >= (1 - MOST_PADDING) * tokens:
                fitting.append((abs(math.log(width / height / ratio)), height, width))
        if not fitting or min(fitting)[0] > math.log(4 / 3) / 2:
            raise ConfigError(
                f"no picture of {tokens} tokens is {ratio:.2f} times as wide as high within "
                f"{MOST_PADDING:.0%} of padding: take another number of tokens"
            )
        sizes.append(min(fitting)[1:])
    return sizes


def square_sizes(tokens: int) -> list[tuple[int, int]]:
    """As `picture_sizes`, of squares alone: all else is cropped to them. What native aspect ratios
    are worth is seen beside it."""
    return picture_sizes(tokens, (1.0,))


def native_sizes(tokens: int) -> list[tuple[int, int]]:
    """(height, width) in patches of as few pictures as it takes for every other, from the tallest
    to the widest of the common aspect ratios, to lose one patch of height or width at most when it
    is cropped to the nearest. They leave up to 10 % of a row empty, where less does not do.

    Raises:
        ConfigError: so few tokens have too few shapes for that; 900 do.
    """
    for padding in NATIVE_PADDING:
        if sizes := _covering(tokens, padding):
            return sizes
    raise ConfigError(
        f"pictures of {tokens} tokens have too few shapes within {NATIVE_PADDING[-1]:.0%} of "
        "padding to lose one patch at most: take more tokens, or the common aspect ratios"
    )


def _covering(tokens: int, padding: float) -> list[tuple[int, int]]:
    """The fewest sizes, in the order of their aspect ratios, that do; none if there are none."""
    narrowest, widest = min(ASPECT_RATIOS), max(ASPECT_RATIOS)
    sizes = sorted(
        (
            (height, width)
            for height in range(1, tokens + 1)
            for width in range(math.ceil((1 - padding) * tokens / height), tokens // height + 1)
            if narrowest / 2 < width / height < widest * 2
        ),
        key=lambda size: size[1] / size[0],
    )
    fewest: list[list[tuple[int, int]]] = []  # that do for all pictures up to this one's ratio
    for number, (height, width) in enumerate(sizes):
        ratio, least = width / height, width / (height + 1)
        chains = (
            [[]]
            if least <= narrowest
            else [
                fewest[before]
                for before, (h, w) in enumerate(sizes[:number])
                # To the middle between both a picture goes to the one, and from there to the other.
                if fewest[before]
                and w / h < ratio
                and least <= math.sqrt(ratio * w / h) <= (w + 1) / h
            ]
        )
        fewest.append([*min(chains, key=len), (height, width)] if chains else [])
    whole = [chain for chain in fewest if chain and (chain[-1][1] + 1) / chain[-1][0] >= widest]
    return min(whole, key=len, default=[])


def buckets_of(
    pictures: Sequence[int],
    durations: Sequence[int],
    *,
    temporal: int,
    cell: int,
    weight: Callable[[int, int], float] = lambda tokens, frames: 1.0,
    sizes: Callable[[int], Sequence[tuple[int, int]]] = picture_sizes,
) -> tuple[Bucket, ...]:
    """A bucket for every resolution, duration and aspect ratio.

    Args:
        pictures: resolutions, in tokens a picture.
        durations: in latent frames; 1 is an image.
        temporal: frames a latent frame after the first.
        cell: pixels a side of a patch.
        weight: share of the steps of (tokens a picture, latent frames), split evenly over the
            aspect ratios.
        sizes: (height, width) in patches of the pictures of a resolution: `picture_sizes` of the
            common aspect ratios, `native_sizes`, or `square_sizes`.
    """
    shapes = {tokens: sizes(tokens) for tokens in pictures}
    return tuple(
        Bucket(
            frames=1 + temporal * (latent_frames - 1),
            height=height * cell,
            width=width * cell,
            weight=weight(tokens, latent_frames) / len(shapes[tokens]),
        )
        for tokens, latent_frames in itertools.product(pictures, durations)
        for height, width in shapes[tokens]
    )


def aligned(length: int, context: int) -> int:
    """`length` tokens rounded up for `context` devices to whole blocks of a kernel, the largest
    that add at most 1.5 %."""
    for block in BLOCKS:
        rounded = -(-length // (context * block)) * context * block
        if rounded <= (1 + MOST_ROUNDING) * length:
            return rounded
    return -(-length // context) * context


def equal_classes(
    lengths: Sequence[int], *, ways: int, context: int, cost: Callable[[int], float]
) -> tuple[ShapeClass, ...]:
    """A shape class for each length of row, with as many rows that a step of any costs the same
    within 1.3, and with the longest as few rows as that allows. A part of a class has no more
    tokens on a device than a row of the longest; a row lies on as few devices as that allows.

    Args:
        lengths: tokens a row; repeated ones share a class.
        ways: devices that rows are split over, and of those of `context` as many more as do not
            share a row; rows are multiples of it.
        context: devices that the tokens of the longest row are split over.
        cost: of a row of so many tokens, in any unit.
    """
    held = aligned(max(lengths), context) // context
    shared = {length: _fewest_sharing(length, context, held) for length in lengths}
    rounded = sorted({(aligned(length, over), over) for length, over in shared.items()})
    costs = [cost(length) for length, _ in rounded]
    for most_rows in range(1, MOST_MULTIPLES):
        classes = []
        for (length, over), each in zip(rounded, costs, strict=True):
            more_ways = context // over
            wanted = most_rows * costs[-1] / each / more_ways
            parts, rows = _in_parts(wanted, held * over // length)
            at_most = over if over < context else None
            classes.append(ShapeClass(ways * more_ways * parts * rows, length, parts, at_most))
        spent = [one.rows * each for one, each in zip(classes, costs, strict=True)]
        if max(spent) <= MOST_UNEQUAL * min(spent):
            return tuple(classes)
    tried = [length for length, _ in rounded]
    raise ConfigError(f"no numbers of rows make steps of {tried} tokens cost about the same")


def _fewest_sharing(length: int, context: int, held: int) -> int:
    """Devices that a row is split over, as few of `context` as hold so many tokens each."""
    divisors = (over for over in range(1, context + 1) if context % over == 0)
    return next(over for over in divisors if aligned(length, over) <= held * over)


def _in_parts(rows: float, most: int) -> tuple[int, int]:
    """Parts, and rows of each, at most `most`, that come nearest to so many rows in few parts."""
    fewest = max(1, math.floor(rows / most))
    choices = [(p, max(1, min(most, round(rows / p)))) for p in range(fewest, fewest + MORE_PARTS)]
    return min(choices, key=lambda choice: abs(math.log(choice[0] * choice[1] / rows)))
