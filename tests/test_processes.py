"""Processes find each other by the environment, and stop where they do not mean the same run."""

import jax
import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.processes import DisagreementError, agree, is_first, join, to_host
from tests.processes import in_processes


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SORA_PROCESSES": "two"}, "SORA_PROCESSES='two' is no positive number"),
        ({"SORA_PROCESSES": "2"}, "SORA_COORDINATOR='' is no HOST:PORT"),
        (
            {"SORA_PROCESSES": "2", "SORA_COORDINATOR": "host"},
            "SORA_COORDINATOR='host' is no HOST:PORT",
        ),
        (
            {"SORA_PROCESSES": "2", "SORA_COORDINATOR": "host:1", "SORA_PROCESS": "2"},
            "SORA_PROCESS='2' is none of 0 to 1",
        ),
        ({"SORA_JOIN_SECONDS": "0"}, "SORA_JOIN_SECONDS='0' is no positive number"),
    ],
)
def test_an_environment_that_cannot_be_is_one_sentence(
    environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        join(environment)


def test_a_process_alone_joins_nobody_and_agrees_with_itself() -> None:
    join({})
    join({"SORA_PROCESSES": "1"})
    agree({"seed": "1"})
    assert is_first()


@pytest.mark.parametrize(
    "environment",
    [{"SORA_PROCESSES": "auto"}, {"TPU_WORKER_HOSTNAMES": "host-0.job,host-1.job"}],
    ids=["told", "found"],
)
def test_on_a_pod_jax_is_left_to_find_the_others(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: asked.append(options))
    join({**environment, "SORA_JOIN_SECONDS": "3600"})
    assert asked == [{"initialization_timeout": 3600}]
    join({"TPU_WORKER_HOSTNAMES": "localhost"})
    assert len(asked) == 1


def child(port: str, number: str) -> None:
    """One of two processes, which share a device mesh and differ in one setting."""
    join(
        {
            "SORA_COORDINATOR": f"localhost:{port}",
            "SORA_PROCESSES": "2",
            "SORA_PROCESS": number,
            "SORA_JOIN_SECONDS": "60",
        }
    )
    assert is_first() == (number == "0")
    agree({"seed": "1", "data": "abc"})
    mesh = jax.make_mesh((4,), ("rows",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    array = jax.make_array_from_callback((8,), rows, lambda index: np.arange(8)[index])
    np.testing.assert_array_equal(to_host(array), np.arange(8))
    with pytest.raises(DisagreementError) as told:
        agree({"seed": number, "data": "abc", f"only {number}": "x" * 100})
    assert "seed is 0 in process 0 and 1 in process 1" in str(told.value)
    assert "only 1 is nothing in process 0" in str(told.value)
    assert "data" not in str(told.value)


def test_two_processes_join_share_and_disagree() -> None:
    in_processes(2, "tests.test_processes")
