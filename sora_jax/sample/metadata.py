"""What a file says of how it was made: one JSON inside the container, the same as in its sidecar.

It stands where every tool shows it and most carry it on: as the comment. FFmpeg copies that from
MP4 into MP4, MOV, Matroska, WebM and AVI, encoding anew or not; of a key of our own MP4 would keep
nothing at the first copy.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_jax.data.formats import open_image, open_video
from sora_jax.errors import UserError

COMMENT = "comment"  # in MP4; in PNG, where keywords are capitalised, "Comment"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def as_comment(metadata: Mapping[str, Any]) -> str:
    """A line of ASCII, in the given order of keys, which every container keeps as it is."""
    return json.dumps(metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """What the comment of an MP4 or PNG says, or of a video that was copied from one.

    Raises:
        UserError: the file cannot be read, or says nothing.
    """
    try:
        with path.open("rb") as file:
            is_png = file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
        if is_png:
            with open_image(path, ["PNG"]) as image:
                said = dict(image.text)
        else:
            with open_video(path) as container:
                said = dict(container.metadata)
    except Exception as error:  # Pillow and PyAV each raise their own
        raise UserError(f"cannot read the metadata of {path}: {error}") from error
    comments = [text for name, text in said.items() if name.lower() == COMMENT]
    try:
        content = json.loads(comments[0])
    except (IndexError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not say how it was made: its comment holds no JSON object")
    return content
