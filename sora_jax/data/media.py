"""Pixels <-> media bytes: PyAV for video, Pillow for images, zlib for small lossless clips."""

import functools
import io
import re
import zlib
from fractions import Fraction
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.formats import open_image, open_video
from sora_jax.data.schema import MediaFormat, Record

# Up to this many bytes of pixels a clip is stored lossless: it costs little disk at these sizes,
# and nine frames of 32 x 32 are read in 0.1 ms, against 4 ms as H.264.
LOSSLESS_BYTES = 2**20
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \((\d+), (\d+), (\d+), (\d+)\), \} *\n",
    re.DOTALL,
)


def encode_clip(video: UInt8[np.ndarray, "t h w 3"], fps: float) -> tuple[bytes, MediaFormat]:
    """Media of a clip: up to 1 MiB of pixels PNG for one frame and npy.zlib for several, lossless;
    above that JPEG and MP4.

    Equal pixels give equal bytes on every machine.
    """
    if len(video) == 1:
        if video.nbytes <= LOSSLESS_BYTES:
            return encode_png(video[0]), "png"
        return encode_jpeg(video[0]), "jpeg"
    if video.nbytes <= LOSSLESS_BYTES:
        array = io.BytesIO()
        np.save(array, np.ascontiguousarray(video), allow_pickle=False)
        return zlib.compress(array.getvalue(), 6), "npy.zlib"
    return encode_mp4(video, fps), "mp4"


def decode_record(record: Record) -> UInt8[np.ndarray, "t h w 3"]:
    """Pixels of a record.

    Raises:
        ValueError: the media cannot be decoded, or has another size than the record says.
    """
    try:
        if record.media_format == "npy.zlib":
            video = _parse_npy(zlib.decompress(record.media))
        elif record.media_format == "mp4":
            video = decode_mp4(record.media)
        else:
            video = decode_image(record.media, record.media_format)[None]
    except MemoryError:
        raise  # of this machine, now: nothing that the record is to blame for
    except Exception as error:  # PyAV, Pillow, zlib and NumPy each raise their own
        raise ValueError(f"{record.media_format} media cannot be decoded: {error}") from error
    expected = (record.frames, record.height, record.width, 3)
    if video.shape != expected or video.dtype != np.uint8:
        raise ValueError(f"media has shape {video.shape}, the record says {expected}")
    return video


def _parse_npy(data: bytes) -> UInt8[np.ndarray, "t h w 3"]:
    """np.load of what `encode_clip` saves. NumPy reads the header with `ast`, which fails at random
    when two threads use it at once, before Python 3.11.8 (github.com/python/cpython/issues/106905).
    """
    start = 10 + int.from_bytes(data[8:10], "little")
    return np.frombuffer(data, np.uint8, offset=start).reshape(_npy_shape(data[:start]))


@functools.lru_cache(maxsize=256)
def _npy_shape(header: bytes) -> tuple[int, ...]:
    """All clips of a bucket have one header."""
    match = NPY_HEADER.fullmatch(header)
    if match is None:
        raise ValueError("no array of uint8 with four axes")
    return tuple(map(int, match.groups()))


def encode_png(image: UInt8[np.ndarray, "h w 3"], comment: str | None = None) -> bytes:
    """`comment`: a text that goes with the picture, as an iTXt chunk before it."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    file, said = io.BytesIO(), PngInfo()
    if comment is not None:
        said.add_itxt("Comment", comment)
    Image.fromarray(image).save(file, "PNG", pnginfo=said)
    return file.getvalue()


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> bytes:
    """JPEG at full colour resolution: a third of the bytes of PNG for photographs, above 41 dB."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def decode_image(media: bytes, media_format: Literal["png", "jpeg"]) -> UInt8[np.ndarray, "h w 3"]:
    with open_image(media, [media_format.upper()]) as image:
        return np.asarray(image.convert("RGB"))


def encode_mp4(video: UInt8[np.ndarray, "t h w 3"], fps: float, quality: int = 12) -> bytes:
    """H.264 at full colour resolution; `quality` is x264's constant rate factor, 0 the finest."""
    import av
    from av.video.reformatter import Colorspace, VideoReformatter

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=av_rate(fps),
            options={
                "crf": str(quality),
                "preset": "veryfast",
                # Without it x264 picks code by CPU and the bytes differ from machine to machine.
                "x264-params": "cpu-independent=1:threads=1",
            },
        )
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv444p"
        reformatter = VideoReformatter()
        for image in video:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = reformatter.reformat(frame, format="yuv444p", dst_colorspace=Colorspace.ITU709)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode_mp4(media: bytes) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a stored clip."""
    from av.video.reformatter import Colorspace, VideoReformatter

    reformatter = VideoReformatter()  # one for all frames: a new one each costs half the speed
    with open_video(media, ["mov"]) as container:
        container.streams.video[0].thread_type = "NONE"  # the loader's threads are enough
        pictures = [
            reformatter.reformat(frame, format="rgb24", src_colorspace=Colorspace.ITU709)
            for frame in container.decode(video=0)
        ]
    return np.stack([picture.to_ndarray() for picture in pictures])


def av_rate(fps: float) -> Fraction:
    """A frame rate as the exact fraction that containers hold: 29.97 is 30000/1001."""
    for candidate in (Fraction(round(fps)), Fraction(round(fps * 1.001) * 1000, 1001)):
        if abs(float(candidate) - fps) < 0.005:
            return candidate
    return Fraction(fps).limit_denominator(1000)
