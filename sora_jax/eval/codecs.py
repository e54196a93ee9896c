"""JPEG and AV1 at the bytes that a clip's latents take: what a codec makes of as many.

Latents are counted at BITS a number, which is for them what quantising them to 2^BITS even levels
costs; `latent_levels` does that, so that the cost in PSNR can be told beside. Codecs are counted
without what says nothing of the clip: of JPEG the scan alone, without headers and the standard's
tables, of AV1 what goes into a container. That favours JPEG where clips are small.

Codecs are given their best: the finest quality that fits, at full size or at a half or a quarter of
it resized as the bilinear baseline is, whichever comes closest to the clip.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.data.formats import open_image
from sora_jax.eval.reconstruction import levels_of, psnr, resized

Video = UInt8[np.ndarray, "t h w 3"]

BITS = 8  # of a number of the latents
SCALES = (1, 2, 4)  # that pictures are made smaller by
LEAST_SIDE = 16  # pixels, of a smaller picture: AV1's least
AV1_PRESET = 4  # of SVT-AV1's 0 to 13, the slowest first: no finer one codes short clips better


@dataclasses.dataclass(frozen=True)
class Coded:
    """What a codec makes of a clip, and the bytes it took."""

    video: Video
    size: int


@dataclasses.dataclass(frozen=True)
class Codec:
    """`code(clip, quality)`, of which all `qualities` are told from coarse to fine."""

    code: Callable[[Video, int], Coded]
    qualities: Sequence[int]


def latent_bytes(numbers: int) -> int:
    """Of so many numbers, rounded up."""
    return -(-numbers * BITS // 8)


def latent_levels(values: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... c"]:
    """Latents at the nearest of 2^BITS levels of each channel, even from its least to its most."""
    axes = tuple(range(values.ndim - 1))
    low, high = values.min(axes), values.max(axes)
    step = np.maximum((high - low) / (2**BITS - 1), np.finfo(np.float32).tiny)
    return (low + np.round((values - low) / step) * step).astype(values.dtype)


def at_bytes(video: Video, budget: int, codec: Codec) -> Coded:
    """The closest to the clip that takes `budget` bytes or fewer; where nothing is as small, the
    smallest."""
    found: list[Coded] = []
    height, width = video.shape[1:3]
    for scale in SCALES:
        size = (len(video), *(2 * round(side / scale / 2) for side in (height, width)))
        if scale > 1 and min(size[1:]) < LEAST_SIDE:
            break
        small = video if scale == 1 else levels_of(resized(video.astype(np.float64), size))
        coded = _finest(small, budget, codec)
        if scale > 1:
            large = levels_of(resized(coded.video.astype(np.float64), video.shape[:3]))
            coded = dataclasses.replace(coded, video=large)
        found.append(coded)
    fitting = [coded for coded in found if coded.size <= budget]
    if not fitting:
        return min(found, key=lambda coded: coded.size)
    return max(fitting, key=lambda coded: psnr(coded.video, video))


def _finest(video: Video, budget: int, codec: Codec) -> Coded:
    """By bisection: bytes grow with quality."""
    low, high = 0, len(codec.qualities) - 1
    best = codec.code(video, codec.qualities[low])
    while low < high:
        middle = (low + high + 1) // 2
        coded = codec.code(video, codec.qualities[middle])
        if coded.size <= budget:
            best, low = coded, middle
        else:
            high = middle - 1
    return best


def jpeg(video: Video, quality: int) -> Coded:
    """Every frame by itself, with colours at half the resolution."""
    from PIL import Image

    frames, size = [], 0
    for frame in video:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=2)
        content = file.getvalue()
        size += _scan_bytes(content)
        frames.append(np.asarray(open_image(content).convert("RGB")))
    return Coded(np.stack(frames), size)


def _scan_bytes(content: bytes) -> int:
    """Of a baseline JPEG: from the end of the header of its one scan to the mark of its end."""
    place = 2  # after the mark of its start
    while content[place : place + 2] != b"\xff\xda":
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return len(content) - 2 - (place + 2 + int.from_bytes(content[place + 2 : place + 4], "big"))


def av1(video: Video, quality: int) -> Coded:
    """By SVT-AV1 as one group of pictures, 4:2:0 and BT.709; `quality` is its constant rate factor.
    4:2:0 is all that this encoder has."""
    import av
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

    os.environ.setdefault("SVT_LOG", "1")  # errors alone: it writes 20 lines to stderr for a clip
    encoder = av.CodecContext.create("libsvtav1", "w")
    encoder.height, encoder.width = video.shape[1:3]
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    encoder.options = {"crf": str(quality), "preset": str(AV1_PRESET)}
    reformatter, packets = VideoReformatter(), []
    for image in video:
        frame = reformatter.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = cast(VideoCodecContext, av.CodecContext.create("libdav1d", "r"))
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    pictures = [
        reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
        ).to_ndarray()
        for frame in decoded
    ]
    return Coded(np.stack(pictures), sum(packet.size for packet in packets))


CODECS = {
    "jpeg": Codec(jpeg, range(1, 96)),
    "av1": Codec(av1, range(63, 0, -1)),
}
