"""Sizes that keep the code readable: of files, of functions, and of the main path as a whole."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("sora_jax", "experiments", "data_pipelines", "launch", "benchmarks", "tests")
MAX_FILE_LINES = 350
MAX_TEST_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# What a newcomer reads in one sitting to know how a step is made, in reading order.
MAIN_PATH = (
    "experiment.py",
    "assemble.py",
    "train/loop.py",
    "train/step.py",
    "train/state.py",
    "diffusion/loss.py",
    "diffusion/path.py",
    "diffusion/times.py",
    "diffusion/conditioning.py",
    "models/dit.py",
    "nn/stack.py",
)
MAX_MAIN_PATH_LINES = 1300

FILES = sorted(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py"))


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_file_and_its_functions_are_short(file: Path) -> None:
    is_test = file.is_relative_to(REPOSITORY / "tests")
    assert lines_of(file) <= (MAX_TEST_FILE_LINES if is_test else MAX_FILE_LINES)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_every_file_states_its_purpose_first() -> None:
    silent = [file for file in FILES if not ast.get_docstring(ast.parse(file.read_text("utf-8")))]
    assert silent == []


def test_the_main_path_is_read_in_one_sitting() -> None:
    lengths = {name: lines_of(REPOSITORY / "sora_jax" / name) for name in MAIN_PATH}
    assert sum(lengths.values()) <= MAX_MAIN_PATH_LINES, lengths


def test_no_file_is_a_drawer_for_anything() -> None:
    names = {"utils", "util", "helpers", "misc", "common"}
    assert [file for file in FILES if file.stem in names] == []
