"""What is written to file descriptor 2 is captured, and nothing of it is lost with an exception."""

import os

import pytest

from sora_jax.pod.stderr import captured_stderr


def test_what_native_code_writes_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as captured:
        os.write(2, b"from below\n")
    os.write(2, b"afterwards\n")
    assert captured.text == "from below\n"
    assert capfd.readouterr().err == "afterwards\n"


def test_an_exception_has_the_text_written_first(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"why\n")
        raise KeyError("what")

    with pytest.raises(KeyError, match="what"), captured_stderr() as captured:
        fail()
    assert captured.text == "why\n"
    assert capfd.readouterr().err == "why\n"


def test_captures_nest(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as outer:
        os.write(2, b"1")
        with captured_stderr() as inner:
            os.write(2, b"2")
        os.write(2, b"3")
    assert (outer.text, inner.text) == ("13", "2")
    assert capfd.readouterr().err == ""
