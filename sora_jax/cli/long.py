"""The flags of `sora sample` that are about clips of several windows, and what they do."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sora_jax.cli.expansion import Story, Told
from sora_jax.cli.tasks import Asked
from sora_jax.config import ConfigError
from sora_jax.generator import Generator
from sora_jax.sample.long_files import write_long
from sora_jax.sample.video_io import file_stem


class LongFlags:
    """Flags of one command, and their values once that has parsed them."""

    def __init__(self, own: flags.FlagValues) -> None:
        """Adds them to those that the command has."""
        self._seconds = flags.DEFINE_float(
            "seconds",
            None,
            "make a clip of any duration, window by window; the same command goes on with one that "
            "was stopped",
            flag_values=own,
        )
        self._window = flags.DEFINE_integer(
            "window",
            None,
            "frames that are made at once of a clip of --seconds or --frames (default: the longest "
            "trained on)",
            flag_values=own,
        )
        self._levels = flags.DEFINE_integer(
            "levels",
            None,
            "noise levels at which the frames of a window stand; above 1 they roll through it "
            "(default: 1)",
            flag_values=own,
        )
        self._history_level = flags.DEFINE_float(
            "history_level",
            None,
            "noise on what a window is given of the one before, against drift (default: the mean "
            "in training)",
            flag_values=own,
        )
        self._then = flags.DEFINE_multi_string(
            "then",
            [],
            "SECOND:PROMPT that takes over from then on; may be given several times",
            flag_values=own,
        )

    @property
    def are_given(self) -> bool:
        """Whether clips are of several windows."""
        return self._seconds.value is not None or self._window.value is not None

    @property
    def story(self) -> Story:
        """Prompts that take over; raises ConfigError where --then is not understood."""
        return tuple(map(_turn, self._then.value))

    def of_window(self, asked: Asked) -> Asked:
        """What is asked for of a clip's first window, or of the clip if there is one window.

        Raises:
            ConfigError: flags contradict each other.
        """
        others = {"levels": self._levels, "history_level": self._history_level, "then": self._then}
        if not self.are_given:
            given = [f"--{name}" for name, flag in others.items() if flag.value not in (None, [])]
            if given:
                raise ConfigError(
                    f"{given[0]} is of a clip of several windows: give --seconds, how long it is"
                )
            return asked
        if (self._seconds.value is None) == (asked.frames is None):
            raise ConfigError("say how long a clip of several windows is by --seconds or --frames")
        return dataclasses.replace(asked, frames=self._window.value)

    def write(
        self,
        generator: Generator,
        told: Sequence[Told],
        context: int | None,
        frames: int | None,
        directory: Path,
        made_by: Mapping[str, Any],
    ) -> None:
        """Makes a clip from each first window, and writes it into `directory`.

        Raises:
            RequestError: a clip cannot be made.
            UserError: there are parts of another clip, or a file cannot be written.
        """
        more: dict[str, Any] = {
            "levels": 1 if self._levels.value is None else self._levels.value,
            "history_level": self._history_level.value,
        }
        for number, one in enumerate(told):
            first, said = one.request, {**made_by, **one.said}
            if self._seconds.value is not None:
                frames = round(self._seconds.value * first.fps)
            assert frames is not None
            asked = generator.long_request(first, frames, context=context, story=one.story, **more)
            name = file_stem(number, said.get("prompt_before_expansion", first.prompt), first.seed)
            write_long(generator.sampler, asked, directory / f"{name}.mp4", said)


def _turn(words: str) -> tuple[float, str]:
    second, _, prompt = words.partition(":")
    try:
        return float(second), prompt.strip()
    except ValueError as error:
        raise ConfigError(
            f"--then {words!r} is not understood: give a second and a prompt, as in '10:it stops'"
        ) from error
