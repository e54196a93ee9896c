"""How the commands of launch read their flags and word mistakes: one sentence, and exit code 1."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sora_jax.errors import DONE, ConfigError, UserError


class Parser(argparse.ArgumentParser):
    """Flags of one command."""

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """In one sentence, where argparse would print its usage first."""
        raise ConfigError(message)


def command_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts flags from the command behind the first `--`; `ConfigError` if there is none."""
    before = list(words)
    if "--" in before:
        place = before.index("--")
        before, command = before[:place], before[place + 1 :]
        if command and command[0]:
            return before, command
    raise ConfigError("there is nothing to run: end with -- and a command, as in -- sora train")


def checked_slices(slices: int) -> None:
    """`ConfigError` if there are none."""
    if slices < 1:
        raise ConfigError(f"--slices {slices}: a run has at least one slice")


def checked_image(image: str) -> None:
    """`ConfigError` if it names no certain image; a registry may have a port."""
    name = image.rpartition("/")[2]
    if re.fullmatch(r"[^\s@:]+(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?", name) is None or not (
        {":", "@"} & set(name)
    ):
        raise ConfigError(
            f"--image {image} has no tag: restarts would run what is newest then; "
            f"give one, as in {image.partition('@')[0].rstrip(':')}:1"
        )


def exit_code_of(main: Callable[[Sequence[str]], None], name: str, words: Sequence[str]) -> int:
    """Runs a command; what the user did wrong goes to stderr."""
    try:
        main(words)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    return DONE
