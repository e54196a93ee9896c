"""The directory of a run: made once, and never by another run."""

from pathlib import Path

from sora_jax import config as configs
from sora_jax.data.mixture import Clips
from sora_jax.experiment import Experiment
from sora_jax.processes import is_first, wait_for_all


def open_directory(experiment: Experiment, clips: Clips, directory: Path) -> None:
    """Makes the run directory, or checks that it is of this experiment; keeps the tokenizer. A run
    that was imported has met no set, and gets the tokenizer now.

    Of several processes, which all call it, one makes it.
    """
    path = directory / "config.json"
    tokenizer = directory / "tokenizer.model"
    is_new, has_tokenizer = not path.exists(), tokenizer.exists()
    wait_for_all("run directory looked for")
    if is_new:
        if is_first():
            _make_directory(experiment, clips, directory)
        wait_for_all("run directory made")
        return
    saved = configs.load(Experiment, path)
    if saved.trained() != experiment.trained():
        raise configs.ConfigError(
            f"{directory} holds a run of config {configs.fingerprint(saved.trained())}, this "
            f"one is {configs.fingerprint(experiment.trained())}: choose another --workdir, or "
            "the same settings"
        )
    if not has_tokenizer:
        if is_first():
            _make_directory(saved, clips, directory)
        wait_for_all("tokenizer kept")
    if tokenizer.read_bytes() != clips.tokenizer.model:
        raise configs.ConfigError(
            f"{directory} holds a run on another set, whose captions are cut into other "
            f"tokens than those of {clips.directory}: choose another --workdir, or that set"
        )


def _make_directory(experiment: Experiment, clips: Clips, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.model").write_bytes(clips.tokenizer.model)
        configs.save(experiment, directory / "config.json")
    except OSError as error:
        raise configs.ConfigError(f"cannot make a run in {directory}: {error.strerror}") from error
