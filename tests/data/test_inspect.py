"""Looking into a set: every bucket is in the table and on the contact sheet."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from sora_jax.data import inspect
from sora_jax.data.sources import ClipSet


def test_the_table_counts_every_bucket(clip_set: ClipSet, numbers: SimpleNamespace) -> None:
    lines = inspect.table(clip_set).splitlines()
    counts = {line.split()[0]: int(line.split()[1]) for line in lines[1:6]}
    expected = dict(zip((b.name for b in numbers.config.buckets), numbers.sizes, strict=True))
    assert counts == expected | {"all": sum(numbers.sizes)}


def test_the_sheet_shows_clips_of_every_bucket(clip_set: ClipSet, tmp_path: Path) -> None:
    inspect.contact_sheet(clip_set, tmp_path / "new" / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    bands = np.split(sheet, 4)
    # Clips are of one grey level each, their number; the last of each bucket is shown.
    for band, last in zip(bands, (39, 20, 2, 8), strict=True):
        assert (band == last).all(axis=-1).sum() >= inspect.CELL_HEIGHT * 40
