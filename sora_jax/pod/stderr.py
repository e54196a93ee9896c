"""Captures what native code writes to file descriptor 2, where Python's sys.stderr cannot see it.

libtpu states the memory of a program only in its own log, and the log goes there.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

STDERR = 2

# There is one descriptor 2 for all threads; nested captures of one thread are fine.
_LOCK = threading.RLock()


@dataclasses.dataclass
class Captured:
    """The text that was written; it stands here once the capture has ended."""

    text: str = ""


@contextlib.contextmanager
def captured_stderr() -> Iterator[Captured]:
    """Send file descriptor 2 of the whole process into a text until the block ends.

    What other threads write meanwhile lands in the text too. An error that leaves the block has the
    text written to stderr first, so nothing is lost with it; only a process that native code aborts
    dies without it.
    """
    captured = Captured()
    failed = False
    with _LOCK, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        stderr = os.dup(STDERR)
        os.dup2(file.fileno(), STDERR)
        try:
            yield captured
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, STDERR)
            os.close(stderr)
            file.seek(0)
            captured.text = file.read().decode(errors="replace")
            if failed:
                write_stderr(captured.text)


def write_stderr(text: str) -> None:
    """Write the text to file descriptor 2, as the native code would have done."""
    sys.stderr.flush()
    data = text.encode()
    while data:
        data = data[os.write(STDERR, data) :]
