"""Golden files: what a text must not differ from, unless that is meant."""

from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"


def check_golden(name: str, text: str, update: bool, test: str) -> None:
    """Compares the text with the file of that name, or writes it. `test`: the file that asks."""
    path = GOLDEN / name
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = path.read_text() if path.exists() else ""
    command = f"pytest --update-golden {Path(test).relative_to(GOLDEN.parent.parent)}"
    assert text == expected, f"{path.name} has changed: if that was meant, {command}"
