"""Opening media as one of the few formats that are read, of all that Pillow and FFmpeg know.

Both choose a decoder by what is in a file, whatever its name: a playlist called .mp4 would have
FFmpeg open other files and addresses, PostScript called .png would have Pillow start Ghostscript,
and both know formats by the hundred whose decoders hardly anybody looks after.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")  # as Pillow calls them
# As FFmpeg calls the demuxers: mp4, mov and m4v are one, webm and mkv another.
VIDEO_FORMATS = ("mov", "matroska", "avi")


class FormatError(ValueError):
    """Content that is of none of the formats wanted."""


def open_image(source: Path | bytes, formats: Sequence[str] = IMAGE_FORMATS) -> Any:
    """A Pillow image, not decoded yet, of a file or of its bytes.

    Raises:
        FormatError: it is of no such format, or damaged at its beginning.
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: as of Pillow.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(formats)
        )
    except UnidentifiedImageError as error:
        raise FormatError(f"its content is not {' or '.join(formats)}") from error


def open_video(source: Path | bytes, formats: Sequence[str] = VIDEO_FORMATS) -> Any:
    """A PyAV container to read, of a file or of its bytes; it opens nothing else.

    Raises:
        FormatError: it is of another format that FFmpeg knows.
        av.FFmpegError: it cannot be read, or is of no format.
    """
    import av

    # Without "file:", a name may begin as the address of another protocol does.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    allowed = {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}
    try:
        return av.open(file, "r", container_options=allowed)
    except av.ArgumentError as error:  # what FFmpeg says of a format that is not on the list
        raise FormatError(f"its content is not {' or '.join(formats)}") from error
