"""A queue gives each run to one process, takes it from the dead alone, and loses nothing."""

import dataclasses
import json
import random
import threading
from pathlib import Path

import pytest

from sora_jax.errors import UserError
from sora_jax.scaling.lease import Lease, LostLeaseError
from sora_jax.scaling.queue import RECORDS_FILE, Queue
from sora_jax.scaling.queue_files import ENDED_FILE, RUN_FILE, Ended, checkpoints, lease_path
from sora_jax.scaling.records import read_records
from sora_jax.scaling.status import status_lines, status_table
from sora_jax.scaling.worker import Attempt, conclude
from tests.sweeps import planned, record_of

LEASE = 60.0


class Clock:
    """Time that passes when somebody sleeps, if it is not to end then."""

    def __init__(self, sleeps: bool = True) -> None:
        self.time, self._sleeps = 1_000.0, sleeps

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        if not self._sleeps:
            raise TimeoutError
        self.time += seconds


def a_queue(directory: Path, runs: int = 3, clock: Clock | None = None) -> Queue:
    clock = clock or Clock()
    queue = Queue(directory, LEASE, clock.now, clock.sleep)
    queue.add(planned(number) for number in range(runs))
    return queue


def taken(queue: Queue, worker: str) -> Lease:
    lease = queue.claim(worker)
    assert lease is not None
    return lease


def done(lease: Lease) -> None:
    conclude(lease, Attempt("done"), record_of)


def test_runs_are_taken_in_their_order_and_each_once(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    leases = [taken(queue, "one") for _ in range(3)]
    assert [lease.run for lease in leases] == [planned(number) for number in range(3)]
    for lease in leases:
        done(lease)
    assert queue.claim("one") is None
    assert [entry.state for entry in queue.look()] == ["done"] * 3


def test_of_many_that_ask_at_once_one_gets_a_run(tmp_path: Path) -> None:
    a_queue(tmp_path, runs=12)
    names: list[str] = []
    start = threading.Barrier(8)

    def take(number: int) -> None:
        queue = a_queue(tmp_path, runs=0)
        start.wait()
        while (lease := queue.claim(f"worker-{number}")) is not None:
            names.append(lease.run.run)
            done(lease)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [planned(number).run for number in range(12)]


def test_a_lease_is_stale_once_it_was_seen_unchanged_and_not_before(tmp_path: Path) -> None:
    clock = Clock(sleeps=False)
    held = taken(a_queue(tmp_path, 1), "one")
    other = a_queue(tmp_path, 0, clock)

    def asks() -> Lease | None:
        try:
            return other.claim("other")
        except TimeoutError:
            return None

    assert asks() is None  # its first look, however long ago the heart beat by any clock
    clock.time += LEASE
    held.beat()
    assert asks() is None
    clock.time += LEASE
    assert asks() is None
    clock.time += 1
    lease = asks()
    assert lease is not None
    assert lease.run == held.run
    for late in (held.beat, lambda: done(held)):
        with pytest.raises(LostLeaseError):
            late()
    done(lease)
    assert [entry.state for entry in other.look()] == ["done"]


def test_who_finds_all_that_is_left_alive_leaves(tmp_path: Path) -> None:
    held = taken(a_queue(tmp_path, 1), "one")
    clock = Clock()
    clock.sleep = lambda seconds: held.beat()  # type: ignore[method-assign]
    assert a_queue(tmp_path, 0, clock).claim("other") is None


def test_a_holder_that_cannot_write_its_heartbeat_gives_up(tmp_path: Path) -> None:
    clock, told = Clock(), threading.Event()
    lease = taken(Queue(tmp_path, 0.06, clock.now) if a_queue(tmp_path, 1) else None, "one")  # type: ignore[arg-type]
    reasons: list[str] = []

    def fails() -> None:
        clock.time += 1
        raise UserError("the disk is away")

    lease.beat = fails  # type: ignore[method-assign]
    with lease.beating(lambda reason: (reasons.append(reason), told.set())):  # type: ignore[func-returns-value]
        assert told.wait(30)
    assert reasons == ["no heartbeat of run run-00 can be written: the disk is away"]


def test_any_order_of_deaths_has_each_run_held_by_one_and_done_once(tmp_path: Path) -> None:
    """Workers that die, sleep through their lease, and wake, by a clock of one's own each."""
    draw, clock = random.Random(0), Clock(sleeps=False)
    queues = [a_queue(tmp_path, 5, clock) for _ in range(4)]
    held: dict[int, Lease] = {}
    asleep: list[Lease] = []
    ended: list[str] = []
    for turn in range(2_000):
        clock.time += draw.uniform(0, LEASE / 4)
        number = draw.randrange(4)
        lease = held.get(number)
        if lease is None:
            try:
                if (lease := queues[number].claim(f"{number}.{turn}")) is not None:
                    held[number] = lease
            except TimeoutError:
                pass
        elif draw.random() < 0.1:
            asleep.append(held.pop(number))  # dies, or wakes below
        else:
            try:
                lease.beat()
                if draw.random() < 0.1:
                    done(lease)
                    ended.append(held.pop(number).run.run)
            except LostLeaseError:
                del held[number]
        if asleep and draw.random() < 0.05:
            sleeper = asleep.pop()
            if lease_path(sleeper.directory, sleeper._number + 1).exists():
                with pytest.raises(LostLeaseError):
                    sleeper.beat()
    assert sorted(ended) == [planned(number).run for number in range(5)]
    assert {entry.state for entry in queues[0].look()} == {"done"}
    assert max(len(entry.leases) for entry in queues[0].look()) > 1


def test_a_run_that_fails_twice_is_left_and_stops_do_not_count(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, 2)
    for attempt in (Attempt("stopped", "asked"), Attempt("failed", "one"), Attempt("stopped")):
        conclude(taken(queue, "one"), attempt, record_of)
    assert "run-00 failed once: one" in status_lines(queue.look())
    conclude(taken(queue, "one"), Attempt("failed", "two"), record_of)
    assert taken(queue, "one").run == planned(1)
    assert [entry.state for entry in queue.look()] == ["failed", "leased"]
    assert status_lines(queue.look()) == ["1 failed, 1 leased", "run-00 failed: two"]


def test_a_branch_waits_for_its_trunk_to_come_so_far(tmp_path: Path) -> None:
    clock = Clock(sleeps=False)
    queue = a_queue(tmp_path, 0, clock)
    trunk = planned(1)
    queue.add([planned(0, branch_of=trunk.run, branch_step=6), trunk])
    assert taken(queue, "one").run == trunk
    with pytest.raises(TimeoutError):
        queue.claim("two")
    (checkpoints(tmp_path / trunk.run) / "6").mkdir(parents=True)
    assert taken(queue, "two").run.branch_of == trunk.run


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2", 1))
    assert path.read_bytes() != content


def test_a_damaged_plan_of_a_run_is_named_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = a_queue(tmp_path, 2)
    path = tmp_path / planned(0).run / RUN_FILE
    damage(path)
    first = queue.look()[-1]
    assert first.state == "damaged"
    assert f"{path} is damaged: it is not what was written" in status_lines(queue.look())
    assert taken(queue, "one").run == planned(1)  # the rest go on
    assert queue.add([planned(0), planned(1)]) == 1
    assert f"{path} is damaged" in capsys.readouterr().out
    assert [entry.state for entry in queue.look()] == ["planned", "leased"]


def test_a_damaged_end_is_put_aside_and_the_run_ended_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = a_queue(tmp_path, 1)
    done(taken(queue, "one"))
    before = queue.look()[0].ended
    path = tmp_path / planned(0).run / ENDED_FILE
    damage(path)
    assert queue.look()[0].state == "damaged"
    assert f"{path} is damaged: it is not what was written" in status_lines(queue.look())
    lease = taken(queue, "two")  # once the last one is stale: nothing else says that it ended
    assert f"{path} is damaged" in capsys.readouterr().out
    assert [each.name for each in path.parent.glob("damaged-*")] == ["damaged-0002-ended.json"]
    done(lease)
    after = queue.look()[0].ended
    assert before is not None
    assert after is not None
    assert without_seconds(before) == without_seconds(after)


def without_seconds(ended: Ended) -> Ended:
    assert ended.record is not None
    return dataclasses.replace(ended, record=dataclasses.replace(ended.record, seconds=None))


def test_a_damaged_lease_goes_stale(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, 1)
    held = taken(queue, "one")
    lease_path(held.directory, 1).write_bytes(b'{"digest": ')
    lease = taken(queue, "two")
    assert lease.run == held.run
    with pytest.raises(LostLeaseError):
        held.beat()


def test_records_are_the_same_bytes_in_whatever_order_runs_ended(tmp_path: Path) -> None:
    contents = []
    for name, order in (("one", [0, 1, 2]), ("two", [2, 0, 1])):
        queue = a_queue(tmp_path / name)
        leases = [taken(queue, "worker") for _ in range(3)]
        for number in order:
            leases[number]._start = leases[number]._now()  # no seconds
            done(leases[number])
        path = queue.collect()
        contents.append(path.read_bytes())
        records = read_records(queue.directory)
        assert [record.run for record in records] == [planned(number).run for number in range(3)]
    assert contents[0] == contents[1]


def test_a_larger_plan_keeps_what_was_done(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, 2)
    done(taken(queue, "one"))
    before = queue.collect().read_text()
    assert queue.add(planned(number) for number in range(4)) == 2
    assert [entry.state for entry in queue.look()] == ["done", "planned", "planned", "planned"]
    for _ in range(3):
        done(taken(queue, "one"))
    assert queue.collect().read_text().startswith(before)
    assert len((tmp_path / RECORDS_FILE).read_text().splitlines()) == 4


def test_the_table_tells_of_every_run(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    done(taken(queue, "one"))
    lease = taken(queue, "one")
    log = lease.directory / "train" / "dit" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 5, "loss": 0.5}\n{"step": 6, "loss": 0.2', "utf-8")
    beat_at = lease.holding.time
    rows = [row[3:] for row in status_table(queue.look(), beat_at + 7).rows]
    assert rows[0][0] == "done"
    assert rows[1] == ("running", "one", "5/12", "0.5000", "7 s ago")
    assert rows[2] == ("planned", "", "0/12", "", "")
    assert status_lines(queue.look()) == ["1 done, 1 planned, 1 running"]


def test_what_is_no_queue_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no queue"):
        Queue(tmp_path / "nothing").look()


def test_every_file_says_if_a_byte_of_it_was_changed(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, 1)
    path = tmp_path / planned(0).run / RUN_FILE
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(50):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert queue.look()[0].state == "damaged"
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert queue.look()[0].state == "damaged"
    path.write_bytes(whole)
    assert json.loads(whole)["content"]["run"] == "run-00"
    assert queue.look()[0].state == "planned"
