"""The report of the data schedule, against numbers made by hand."""

import pytest

from sora_jax.config import load_experiment
from sora_jax.data_report import Line, report_text, schedule_report
from sora_jax.experiment import Experiment
from sora_jax.scaling.flops import Row, train_flops

BUCKETS = (
    "data.buckets=(Bucket(frames=1, height=32, width=32, weight=2.0),"  # 16 tokens
    "Bucket(frames=1, height=24, width=40, weight=1.0),"  # 15
    "Bucket(frames=9, height=24, width=40, weight=2.0))"  # 3 x 15
)
CLASSES = "data.shape_classes=(ShapeClass(rows=48, tokens=16), ShapeClass(rows=16, tokens=56))"
CURRICULUM = (
    "dit_stage.curriculum=(Period(start_step=1000, "
    "weights=(('1x24x40', 0.0), ('1x32x32', 0.0))), "
    "Period(start_step=2500, weights=(('1x32x32', 6.0),)))"
)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    changes = (BUCKETS, CLASSES, CURRICULUM, "vae_stage.buckets=()")
    result: Experiment = load_experiment("demo", changes)
    return result


def test_the_numbers_are_those_made_by_hand(experiment: Experiment) -> None:
    def cost(rows: int, tokens: int) -> float:
        row = Row(tokens, experiment.vae.channels, 16, experiment.text.width)
        return rows * train_flops(experiment.dit, row, experiment.text)

    first, second, third = schedule_report(experiment)
    assert (first.start_step, second.start_step, third.start_step) == (0, 1000, 2500)

    short, long = cost(48, 16), cost(16, 56)
    mean = 0.6 * short + 0.4 * long
    # A third of the short steps has 15 of 16 tokens, and the long ones have 45 of 56.
    expected = [
        Line("48x16", 0.6, 48, 768, 16.0, short / mean),
        Line("16x56", 0.4, 16, 896, 176.0, long / mean),
        Line("all", 1.0, 35.2, 0.6 * 768 + 0.4 * 896, 0.6 * 16 + 0.4 * 176, 1.0),
    ]
    assert_close([*first.classes, first.all], expected)
    assert abs(long / mean - 1) > 0.04  # or the cost would tell nothing

    assert_close(
        [*second.classes, second.all],
        [Line("16x56", 1.0, 16, 896, 176.0, 1.0), Line("all", 1.0, 16, 896, 176.0, 1.0)],
    )
    assert [line.share for line in third.classes] == [0.75, 0.25]
    assert third.classes[0].padding == 0


def test_rows_that_clips_share_are_padded_by_what_no_clip_fills() -> None:
    shared = "data.shape_classes=(ShapeClass(rows=16, tokens=50, clips=3),)"
    [report] = schedule_report(load_experiment("demo", (BUCKETS, shared, "vae_stage.buckets=()")))
    # Three images of 16 tokens, three of 15, or one clip of 45.
    held = 0.4 * 48 + 0.2 * 45 + 0.4 * 45
    assert report.classes[0].padding == pytest.approx(16 * (50 - held))


def assert_close(found: list[Line], expected: list[Line]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.name == other.name
        for name in ("share", "rows", "tokens", "padding", "cost"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9), name


def test_the_text_has_a_table_a_period(experiment: Experiment) -> None:
    tables = report_text(schedule_report(experiment)).split("\n\n")
    firsts = [table.splitlines()[0] for table in tables]
    assert firsts == ["steps 0 to 999", "steps 1000 to 2499", "steps from 2500 on"]
    lines = [line.split() for line in tables[0].splitlines()[1:]]
    assert lines[0] == ["class", "batches", "rows", "tokens/row", "padding", "tokens/batch", "cost"]
    assert lines[1][:6] == ["48x16", "60.0%", "48.0", "16.0", "2.1%", "768"]
    # 819.2 tokens in 35.2 rows, of which 80 are padding.
    assert lines[3] == ["all", "100.0%", "35.2", "23.3", "9.8%", "819", "1.000"]


def test_without_a_curriculum_there_is_one_table() -> None:
    text = report_text(schedule_report(load_experiment("demo")))
    assert text.startswith("all steps\nclass ")
    assert "\n\n" not in text
