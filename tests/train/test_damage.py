"""A damaged checkpoint: the one before it is gone on from and it is said, or the run stops."""

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_jax.checkpoints import CheckpointError, Checkpoints, DamagedError, RetentionConfig
from sora_jax.config import ConfigError
from sora_jax.train.loop import train
from sora_jax.train.run import Evaluator
from tests.train.test_loop import CONFIG, Stopped, Stream, assert_equal, make_run


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path: Path) -> None:
    path.unlink()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 4 and 8."""
    directory = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train(make_run(directory, Stream(stop_at=11)))
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == ["4", "8"]
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(make_run(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("damage", [truncate, delete, flip_a_bit])
@pytest.mark.parametrize("pattern", ["meta/metadata", "state/d/*", "ema/d/*", "state/_METADATA"])
def test_the_checkpoint_before_is_gone_on_from(
    stopped: Path,
    whole: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    pattern: str,
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    files = list((tmp_path / "checkpoints" / "8").glob(pattern))
    assert files
    for file in files:
        damage(file)
    assert_equal(train(make_run(tmp_path)), whole)
    told = capsys.readouterr().out
    assert f"tiny: checkpoint {tmp_path}/checkpoints/8 cannot be read" in told
    assert "tiny: continuing from step 4" in told
    assert (tmp_path / "damaged_checkpoints" / "8" / "commit_success.txt").exists()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [12, 8]


def test_no_run_starts_anew_over_checkpoints_that_are_all_damaged(
    stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "checkpoints").glob("*/meta/metadata"):
        truncate(file)
    with pytest.raises(CheckpointError, match="none of the checkpoints of steps .8, 4. in .* can"):
        train(make_run(tmp_path))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "8"]


def test_no_bit_that_flips_anywhere_is_restored(stopped: Path, tmp_path: Path) -> None:
    """Each restore gives what was saved, or an error."""
    run = make_run(tmp_path)
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    expected = checkpoints.restore(run.abstract(), 8)
    files = [path for path in (tmp_path / "checkpoints" / "8").rglob("*") if path.is_file()]
    draw = random.Random(0)
    outcomes = []
    for _ in range(60):
        file = draw.choice(files)
        before = file.read_bytes()
        content = bytearray(before)
        if not content:
            continue
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(bytes(content))
        try:
            assert_equal(checkpoints.restore(run.abstract(), 8), expected)
            outcomes.append("the same")
        except CheckpointError:
            outcomes.append("refused")
        file.write_bytes(before)
    checkpoints.close()
    assert set(outcomes) == {"the same", "refused"}


def test_numbers_that_changed_without_a_file_that_cannot_be_read_are_named(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(stopped / "checkpoints")
    read = checkpoints._meta
    changed = read(8)
    changed["checksums"]["state"]["model.kernel"] ^= 1
    monkeypatch.setattr(checkpoints, "_meta", lambda step: changed)
    with pytest.raises(DamagedError, match="model.kernel is not what was saved"):
        checkpoints.restore(make_run(stopped).abstract(), 8)
    checkpoints.restore_ema(make_run(stopped).abstract().ema, 8)  # which did not change
    checkpoints.close()


def test_what_is_kept_of_the_checkpoints() -> None:
    values: dict[int, float | None] = dict.fromkeys(range(10, 110, 10))
    assert RetentionConfig().kept(values) == {90, 100}
    assert RetentionConfig(last=1, every_steps=30).kept(values) == {30, 60, 90, 100}
    values |= {20: 1.0, 50: 7.0, 80: 3.0}
    assert RetentionConfig(last=1, best="psnr_db").kept(values) == {50, 100}
    assert RetentionConfig(last=1, best="loss", best_is="lowest").kept(values) == {20, 100}
    with pytest.raises(ConfigError, match="last=0 and every_steps=None must be positive"):
        RetentionConfig(last=0)


def test_a_run_keeps_what_it_says_also_over_a_restart(tmp_path: Path) -> None:
    scores = {2: 1.0, 4: 9.0, 6: 3.0, 8: 2.0, 10: 4.0, 12: 5.0}

    def evaluate(state: Any, step: int, writer: Any) -> None:
        writer.scalars(step, {"score": scores[step]})

    config = dataclasses.replace(
        CONFIG,
        save_every=2,
        evaluate_every=2,
        retention=RetentionConfig(last=1, every_steps=6, best="score"),
    )
    with pytest.raises(Stopped):
        train(make_run(tmp_path, Stream(stop_at=8), config, evaluators=[Evaluator(2, evaluate)]))
    train(make_run(tmp_path, None, config, evaluators=[Evaluator(2, evaluate)]))
    assert Checkpoints(tmp_path / "checkpoints").steps() == [12, 6, 4]
