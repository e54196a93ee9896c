"""An expansion that loses or contradicts what its prompt says is found out."""

import pytest

from sora_jax.expansion.kept import lost


@pytest.mark.parametrize(
    ("prompt", "expansion"),
    [
        ("red circle moves left", "a large red circle moves left slowly"),
        ("red circle moves left", "A large red circle is moving to the left, slowly."),
        ("circles", "a red circle, a blue circle and a small circle"),
        ("red circle moves left", "A glossy red circle moves to the left edge of a dark room."),
        ("two dogs running", "Two shaggy dogs run along a beach at dawn."),
        ("a fox flies over Paris", "Above Paris at night, a small fox flies over the roofs."),
        ('a sign that says "Open Late"', 'A neon sign says "Open Late" in a wet street.'),
        ("3 boats", "Three wooden boats lie in a harbour."),
    ],
)  # fmt: skip
def test_what_is_kept_passes(prompt: str, expansion: str) -> None:
    assert lost(prompt, expansion) is None


@pytest.mark.parametrize(
    ("prompt", "expansion", "fault"),
    [
        ("red circle falls", "a large red circle rests", "has no 'red circle falls down'"),
        ("red circle", "a red circle and a blue star", "tells of 2 objects in place of 1"),
        ("two circles", "a circle and a star", "adds 'star'"),
        ("circles", "a circle, a red circle and a star", "adds 'star'"),
        ("two red circles and a circle", "a red circle and two blue circles", "not have each of"),
        ("a star, the camera pans up", "a star", "does not pan the camera up"),
        ("red circle moves left", "A red circle moves left, then right.", "'right' beside 'left'"),
        ("red circle moves left", "A glossy circle moves left.", "lacks 'red'"),
        ("two dogs running", "Shaggy dogs run along a beach.", "lacks 'two'"),
        ("two dogs", "Three dogs on a beach.", "lacks 'two'"),
        ("a fox in Paris", "A fox in a city of lights.", "lacks the name 'Paris'"),
        ('a sign "Open Late"', 'A sign "open late".', "lacks the quoted 'Open Late'"),
        ("a street without cars", "A street full of cars.", "lacks 'without'"),
        ("a cat under a table", "A cat on a table.", "lacks 'under'"),
    ],
)  # fmt: skip
def test_what_is_lost_is_named(prompt: str, expansion: str, fault: str) -> None:
    assert fault in str(lost(prompt, expansion))
