"""What a queue keeps of a run, file by file; each is written whole and holds its own digest.

run.json          the planned run
lease-0001.json   who took it the first time, and its heartbeats; 0002 of the next, and so on
ended.json        how it ended, with its record; written last
train             its run directory, with checkpoints and log
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from sora_jax.errors import ConfigError, RestartableError, UserError
from sora_jax.files import write_file
from sora_jax.scaling.plan import PlannedRun
from sora_jax.scaling.records import RunRecord

RUN_FILE, ENDED_FILE, TRAIN = "run.json", "ended.json", "train"

Content = dict[str, Any]


class DamagedFileError(UserError):
    """A file of the queue is not what was written."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended for good. record: None where it has spent nothing."""

    status: Literal["done", "diverged", "failed"]
    reason: str = ""
    record: RunRecord | None = None


@dataclasses.dataclass(frozen=True)
class Holding:
    """What a lease says. beat: heartbeats so far; seconds: that the run was held, at the last of
    them, which was at `time` by the holder's clock. lease_seconds: without a beat after which it is
    stale. from_step: of the checkpoint that it went on from. given_back: by a holder that was
    stopped, or that failed for `reason`."""

    worker: str
    lease_seconds: float
    from_step: int
    hardware: str = ""
    beat: int = 0
    seconds: float = 0.0
    time: float = 0.0
    given_back: Literal["stopped", "failed"] | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run as its files tell of it. leases: by number from 1, None where one is damaged or is just
    being written. damaged: what else is, in sentences."""

    directory: Path
    run: PlannedRun | None
    ended: Ended | None
    leases: Sequence[Holding | None]
    damaged: Sequence[str] = ()

    @property
    def is_held(self) -> bool:
        """Whether its last lease was not given back; it may be stale."""
        if not self.leases or self.ended is not None:
            return False
        return self.leases[-1] is None or self.leases[-1].given_back is None

    @property
    def failures(self) -> int:
        """Attempts that failed."""
        return sum(each is not None and each.given_back == "failed" for each in self.leases)

    @property
    def state(self) -> str:
        """planned, leased, running, done, diverged or failed; or damaged."""
        if self.run is None or self.damaged:
            return "damaged"
        if self.ended is not None:
            return self.ended.status
        if not self.is_held:
            return "planned"
        last = self.leases[-1]
        return "running" if last and logged(self.directory)[0] > last.from_step else "leased"


def logged(directory: Path) -> tuple[int, float | None]:
    """(Step, loss) of the last line of a run's log that has them; (0, None) without one. The run is
    that of a directory of the queue."""
    path = directory / TRAIN / "dit" / "metrics.jsonl"
    with contextlib.suppress(OSError):
        for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is cut
                values = json.loads(line)
                return int(values["step"]), float(values["loss"])
    return 0, None


def checkpoints(directory: Path) -> Path:
    """Of the run of a directory of the queue."""
    return directory / TRAIN / "dit" / "checkpoints"


def saved(directory: Path) -> int:
    """Step of the newest checkpoint of a run, 0 without any."""
    with contextlib.suppress(OSError):
        names = [each.name for each in checkpoints(directory).iterdir()]
        return max((int(name) for name in names if name.isdigit()), default=0)
    return 0


def lease_path(directory: Path, number: int) -> Path:
    """Of the so-manieth time that a run was taken, from 1."""
    return directory / f"lease-{number:04}.json"


def read_entry(directory: Path) -> Entry:
    """A run by its directory in the queue. Raises RestartableError if a file cannot be read now."""
    damaged: list[str] = []

    def read(path: Path, make: Callable[..., Any]) -> Any:
        try:
            content = read_sealed(path)
            return None if content is None else make(**content)
        except DamagedFileError as error:
            damaged.append(str(error))
        except (TypeError, ConfigError) as error:
            damaged.append(f"{path} is of another version of this code: {error}")
        return None

    def ended_of(record: Content | None, **fields: Any) -> Ended:
        return Ended(record=None if record is None else RunRecord(**record), **fields)

    run = read(directory / RUN_FILE, PlannedRun)
    ended = read(directory / ENDED_FILE, ended_of)
    told = list(damaged)  # a lease that is damaged is followed by the next, and nothing is lost
    last = max((int(each.stem[6:]) for each in directory.glob("lease-*.json")), default=0)
    leases = [read(lease_path(directory, number), Holding) for number in range(1, last + 1)]
    return Entry(directory, run, ended, leases, told)


def sealed(content: Content) -> bytes:
    """A file of JSON that `read_sealed` knows to be whole."""
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps({"digest": digest, "content": content}, indent=1) + "\n").encode()


def write_sealed(path: Path, content: Content) -> None:
    """Writes a file whole, or leaves what was there; raises UserError if it cannot be written."""
    write_file(path, sealed(content))


def read_sealed(path: Path) -> Content | None:
    """What `write_sealed` wrote; None where there is no file.

    Raises:
        DamagedFileError: it is not what was written.
        RestartableError: it cannot be read now.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RestartableError(f"cannot read {path}: {error.strerror}") from error
    try:
        content: Content = json.loads(text)["content"]
        if sealed(content) == text:
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise DamagedFileError(f"{path} is damaged: it is not what was written")


def create_sealed(path: Path, content: Content) -> bool:
    """Writes a file unless there is one already; False then. Of several that try, one succeeds.
    Others may read it before it is whole. Raises RestartableError if it cannot be written now."""
    try:
        with path.open("xb") as file:
            file.write(sealed(content))
            file.flush()
            os.fsync(file.fileno())  # a mounted bucket finds out now that another was faster
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:
            return False
        raise RestartableError(f"cannot write {path}: {error.strerror}") from error
    return True


def set_aside(path: Path, number: int) -> None:
    """Moves a damaged file out of the way; the number tells it from others."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(f"damaged-{number:04}-{path.name}"))
