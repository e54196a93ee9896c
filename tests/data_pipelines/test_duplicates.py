"""Which clip stands for others, which rule drops these, and that comparing takes one thread."""

import dataclasses
import itertools

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from data_pipelines import duplicates
from data_pipelines.duplicates import BY_EMBEDDING, BY_PICTURES, Edge, Known, kept_for
from data_pipelines.table import Row

BEST, PART, COPY, TAKE, FAR = (
    Known((quality,), name, asset)
    for quality, name, asset in (
        (5.0, "best", "film"),
        (1.0, "part", "film"),
        (4.0, "copy", "b"),
        (3.0, "take", "c"),
        (2.0, "far", "d"),
    )
)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([(BEST, COPY, BY_PICTURES)], {"copy": ("best", BY_PICTURES)}),
        ([(TAKE, BEST, BY_EMBEDDING)], {"take": ("best", BY_EMBEDDING)}),
        # Over another copy, which is like both.
        (
            [(BEST, COPY, BY_PICTURES), (COPY, FAR, BY_PICTURES)],
            {"copy": ("best", BY_PICTURES), "far": ("best", BY_PICTURES)},
        ),
        (
            [(BEST, COPY, BY_PICTURES), (COPY, FAR, BY_EMBEDDING)],
            {"copy": ("best", BY_PICTURES), "far": ("best", BY_EMBEDDING)},
        ),
        # A copy of a take: what is kept for it is not what it is a copy of.
        (
            [(BEST, TAKE, BY_EMBEDDING), (TAKE, FAR, BY_PICTURES)],
            {"take": ("best", BY_EMBEDDING), "far": ("best", BY_EMBEDDING)},
        ),
        # Of two shots of one film it stands for the one that it shows.
        (
            [(BEST, COPY, BY_EMBEDDING), (PART, COPY, BY_PICTURES)],
            {"copy": ("part", BY_PICTURES)},
        ),
    ],
)
def test_the_rule_is_that_which_ties_a_clip_to_what_is_kept(
    edges: list[Edge], expected: dict[str, tuple[str, str]]
) -> None:
    for order in itertools.permutations(edges):
        assert dict(kept_for(order)) == expected
        assert dict(kept_for((other, one, rule) for one, other, rule in order)) == expected


def test_clips_are_compared_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[int]:
        blas = [each for each in threadpool_info() if each["user_api"] == "blas"]
        return [each["num_threads"] for each in blas if "numpy" in each["filepath"]]

    thumbnails = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8).tobytes()
    row = Row("a", "a", "a", "a", thumbnails=thumbnails, thumbnail_seconds=0.25)
    seen = []
    for name in ("alike", "keys"):
        real = getattr(duplicates, name)
        monkeypatch.setattr(
            duplicates, name, lambda *clips, real=real: (seen.extend(threads()), real(*clips))[1]
        )
    before = threads()
    if not before:
        pytest.skip("NumPy's BLAS is none that is known here")
    assert duplicates._keyed(row, embedded=False)
    one = duplicates._compared(row)
    other = dataclasses.replace(one, known=dataclasses.replace(one.known, clip_id="b"))
    [(key, (*_, rule))] = duplicates._edges(("a", {"clip": [one], "others": [other]}), None)
    assert (key, rule) == ("", BY_PICTURES)
    assert set(seen) == {1}
    assert threads() == before
