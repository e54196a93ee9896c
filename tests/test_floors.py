"""The import floors hold, and the numerical core runs where optional libraries are missing."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Not for the core: libraries of data, checkpoints, pictures and logs.
BLOCKED = (
    "array_record",
    "av",
    "cv2",
    "grain",
    "matplotlib",
    "orbax",
    "PIL",
    "pyarrow",
    "scenedetect",
    "sentencepiece",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
)

# Imports a module, or every module of a package, where the blocked libraries cannot be found.
SCRIPT = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Blocker())
for name in {modules}:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        importlib.import_module(found.name)
"""
CORE = (
    "sora_jax.types",
    "sora_jax.config",
    "sora_jax.sharding",
    "sora_jax.nn",
    "sora_jax.models",
    "sora_jax.diffusion",
    "sora_jax.train.step",
)


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_without_optional_libraries(module: str) -> None:
    script = SCRIPT.format(blocked=BLOCKED, modules=(module,))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_blocked_imports_would_be_noticed() -> None:
    script = SCRIPT.format(blocked=("json",), modules=("sora_jax.config",))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "No module named 'json' (blocked)" in result.stderr


def test_a_floor_imports_only_the_floors_below_it() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout


def test_training_imports_without_the_libraries_of_other_projects_weights() -> None:
    blocked = ("safetensors", "tokenizers")
    script = SCRIPT.format(blocked=blocked, modules=("sora_jax.cli.train", "sora_jax.cli.sample"))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
