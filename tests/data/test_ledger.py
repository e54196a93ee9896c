"""The ledger tells of every clip what a look into its set needs; a broken one is refused."""

import json
import math
from pathlib import Path

import pytest

from sora_jax.data.ledger import Emitted, Ledger, emitted_clips
from sora_jax.data.schema import DataError


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.dropped("a \u2028 line\n", "too short")
    scores = {"motion": 1 / 3, "broken": math.nan, "far": math.inf, "brightness": 0.0}
    ledger.emitted("b", "b-0", "9x8x8", (), 9, 30000 / 1001, scores)
    ledger.emitted("c", "c-0", "1x8x8", (), 1, 1.0)
    ledger.save(tmp_path / "ledger.jsonl")
    assert list(emitted_clips(tmp_path / "ledger.jsonl")) == [
        Emitted("9x8x8", 9, 30000 / 1001, {"brightness": 0.0, "motion": 0.333333}),
        Emitted("1x8x8", 1, 1.0, {}),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "\udcff",
        '{"reason": "unchanged"}',
        '{"outcome": "emitted"}',
        '{"outcome": "emitted", "bucket": ["9x8x8"]}',
        '{"outcome": "emitted", "bucket": "9x8x8", "frames": 9}',
        '{"outcome": "emitted", "bucket": "9x8x8", "frames": 9, "fps": NaN}',
        '{"outcome": "emitted", "bucket": "9x8x8", "frames": 9, "fps": 0}',
        '{"outcome": "emitted", "bucket": "9x8x8", "frames": "<b>", "fps": 8}',
        '{"outcome": "emitted", "bucket": "9x8x8", "scores": {"motion": NaN}}',
        '{"outcome": "emitted", "bucket": "9x8x8", "scores": {"motion": "high"}}',
        '{"outcome": "emitted", "bucket": "9x8x8", "scores": [1]}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    good = json.dumps({"source": "a", "outcome": "dropped", "reason": "too short"})
    path.write_bytes(f"{good}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"ledger.jsonl: line 2 cannot be read \(") as raised:
        list(emitted_clips(path))
    assert len(str(raised.value)) < 400
