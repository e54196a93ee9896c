"""The image: what it copies is there and let through, what it installs exists, `sora` is exec'd."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.processes import CHECKOUT

DOCKERFILE = CHECKOUT / "launch" / "Dockerfile"


def instructions(kind: str) -> list[str]:
    """What follows each instruction of a kind, on one line."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return re.findall(rf"^{kind} (.+)$", text, flags=re.MULTILINE)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py tells setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", told.update)
    runpy.run_path(str(CHECKOUT / "setup.py"))
    return told


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert copied
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []
    rules = (CHECKOUT / ".dockerignore").read_text().splitlines()
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    assert let_through == {Path(source).parts[0] for source in copied}


def test_what_setup_reads_is_copied_before_it_runs() -> None:
    text = DOCKERFILE.read_text()
    before = text[: text.index("RUN pip install -c")]
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "sora_jax/__init__.py"):
        assert re.search(rf"^COPY .*{re.escape(name)}", before, flags=re.MULTILINE), name


def test_what_is_installed_exists(settings: dict[str, Any]) -> None:
    [first, second] = instructions("RUN")
    match = re.fullmatch(r'pip install -c (\S+) -e "\.\[(.+)\]"', first)
    assert match is not None
    constraints, extras = match.groups()
    assert set(extras.split(",")) <= set(settings["extras_require"])
    assert second == "pip install --no-deps -e ."
    [base] = instructions("FROM")
    python = re.fullmatch(r"python:(3\.\d+)-slim", base)
    assert python is not None
    assert constraints == f"constraints-{python.group(1)}.txt"


def test_sora_is_executed_without_a_shell_between(settings: dict[str, Any]) -> None:
    [command] = instructions("CMD")
    assert json.loads(command)[0] == "sora"
    scripts = settings["entry_points"]["console_scripts"]
    assert [script.partition(" ")[0] for script in scripts] == ["sora"]
    assert instructions("ENTRYPOINT") == instructions("USER") == instructions("SHELL") == []
