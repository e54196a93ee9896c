"""Set-up of every test: eight CPU devices, shapes checked at run time, golden files updatable.

The environment is set before anything imports jax, and processes that tests start inherit it.
"""

import os
from pathlib import Path

import pytest

from benchmarks import quick_compiling

DEVICES_FLAG = "--xla_force_host_platform_device_count=8"
REPOSITORY = Path(__file__).resolve().parent.parent

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = (os.environ.get("XLA_FLAGS", ""), DEVICES_FLAG, quick_compiling.XLA_FLAGS)
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
# Compiled programs are kept between runs; only those that took a second are worth the disk.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

import jaxtyping  # noqa: E402

jaxtyping.install_import_hook(
    ["sora_jax.nn", "sora_jax.models", "sora_jax.diffusion"], "beartype.beartype"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`, which rewrites the golden files instead of comparing with them."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden/* from this run"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether a golden test should write its file instead of comparing with it."""
    return bool(request.config.getoption("--update-golden"))
