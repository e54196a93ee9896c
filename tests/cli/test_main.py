"""The `sora` command: help, unknown words, flags of a command, and how errors reach the user."""

import subprocess
import sys
from pathlib import Path

import pytest

from sora_jax.cli.main import COMMANDS
from tests.cli.one_process import Said, in_one_process

# A command module with a flag of each kind; `main` does what its first word says.
COMMAND = '''"""bake a cake.

    sora bake --oven hot
"""
import sys
from absl import flags
from sora_jax.cli.main import run
from sora_jax.errors import UserError

FLAGS = flags.FlagValues()
OVEN = flags.DEFINE_string("oven", None, "which oven", required=True, flag_values=FLAGS)
EGGS = flags.DEFINE_integer("eggs", 3, "how many eggs", flag_values=FLAGS)
SET = flags.DEFINE_multi_string("set", [], "a setting", flag_values=FLAGS, short_name="s")
ICING = flags.DEFINE_boolean("icing", True, "whether to ice it", flag_values=FLAGS)

def main(argv):
    if "burn" in argv:
        raise UserError("the cake in oven 'hot' is burnt; bake another")
    if "explode" in argv:
        raise RuntimeError("boom")
    print(argv, OVEN.value, EGGS.value, SET.value, ICING.value)

if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
'''


def sora(*arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run `sora` with arguments in a process of its own, after the lines of a script."""
    lines = f"{script}\nfrom sora_jax.cli.main import main\nmain()"
    command = [sys.executable, "-c", lines, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def bake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that runs the command module above as `python -m` does."""
    (tmp_path / "bake.py").write_text(COMMAND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [sys.executable, "-m", "bake"]


def call(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_the_commands_without_jax(word: str) -> None:
    check = "import atexit, sys; atexit.register(lambda: print('jax' in sys.modules))"
    result = sora(word, script=check)
    assert (result.returncode, result.stderr) == (0, "")
    for command, line in COMMANDS.items():
        assert any(text.split() == [command, *line.split()] for text in result.stdout.splitlines())
    assert result.stdout.splitlines()[-1] == "False"


def test_no_command_and_unknown_command_are_mistakes() -> None:
    assert sora().returncode == 1
    near = sora("trian")
    assert near.returncode == 1
    assert near.stderr == "sora: there is no command 'trian'; did you mean 'train'?\n"
    far = sora("xyz")
    assert far.stderr == f"sora: there is no command 'xyz'; there are: {', '.join(COMMANDS)}\n"


def test_help_of_a_command_shows_its_own_flags_only(bake: list[str]) -> None:
    result = call(bake, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "sora bake: bake a cake.\n\n    sora bake --oven hot\n\nflags:\n"
        "  --oven\n      which oven\n"
        "  --eggs\n      how many eggs (default: 3)\n"
        "  --set\n      a setting; repeat this option to specify a list of values\n"
        "  --[no]icing\n      whether to ice it (default: True)\n"
    )


def test_flags_and_words_reach_the_command_in_any_order(bake: list[str]) -> None:
    result = call(bake, "tart", "--oven=hot", "-s", "a=1", "--set", "b=2", "--noicing", "now")
    assert result.stdout == "['sora bake', 'tart', 'now'] hot 3 ['a=1', 'b=2'] False\n"
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--oven=hot", "--egs=2"], "Unknown command line flag 'egs'. Did you mean: eggs ?"),
        (["--oven=hot", "--eggs=two"], "flag --eggs=two: invalid literal for int()"),
        ([], "flag --oven=None: Flag --oven must have a value other than None."),
        (["--oven=hot", "burn"], "the cake in oven 'hot' is burnt; bake another\n"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    bake: list[str], arguments: list[str], sentence: str
) -> None:
    result = call(bake, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"sora bake: {sentence}")
    assert result.stderr.count("\n") == 1


def test_a_fault_of_the_program_shows_its_traceback(bake: list[str]) -> None:
    result = call(bake, "--oven=hot", "explode")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: boom" in result.stderr


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[Said, Said]]:
    """What `sora <command> --help` says, and its module run by itself."""
    by_name = in_one_process([(None, [command, "--help"]) for command in COMMANDS])
    by_itself = in_one_process([(f"sora_jax.cli.{command}", ["--help"]) for command in COMMANDS])
    return dict(zip(COMMANDS, zip(by_name, by_itself, strict=True), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_flags(
    helps: dict[str, tuple[Said, Said]], command: str
) -> None:
    by_name, by_itself = helps[command]
    assert by_name.code == 0, by_name.errors
    assert by_name.output == by_itself.output
    assert by_name.output.startswith(f"sora {command}: ")
    assert "absl" not in by_name.output
