"""The loop on a model of one matrix: what is logged, saved, refused, and continued."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sora_jax.checkpoints import CheckpointError, Checkpoints, named
from sora_jax.config import ConfigError
from sora_jax.nn.layers import Linear
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.clock import Work
from sora_jax.train.guard import NonFiniteError
from sora_jax.train.loop import train
from sora_jax.train.optimizer import OptimizerConfig, make_optimizer
from sora_jax.train.programs import ShapeError
from sora_jax.train.run import Evaluator, Prepared, Run, TrainConfig
from sora_jax.train.state import TrainState, abstract_state, init_state
from sora_jax.train.step import Moment, TrainStep
from sora_jax.types import Drawn
from tests.tiny import eight_device_mesh

OPTIMIZER = OptimizerConfig(peak_rate=1e-2, warmup_steps=2)
CONFIG = TrainConfig(
    steps=12, optimizer=OPTIMIZER, ema_decay=0.9, log_every=3, save_every=4, evaluate_every=6
)


class Stopped(Exception):
    """Stands for a kill: nothing after it runs."""


class Stream:
    """Batches of four vectors that follow from the step; stops the run, or breaks its numbers."""

    def __init__(self, stop_at: int | None = None, broken: range = range(0)) -> None:
        self.next, self.stop_at, self.broken = 0, stop_at, broken

    def __next__(self) -> np.ndarray:
        self.next += 1
        if self.next == self.stop_at:
            raise Stopped
        batch = np.random.default_rng(self.next).standard_normal((4, 6)).astype(np.float32)
        return batch * (np.inf if self.next in self.broken else 1)

    def drawn(self) -> Drawn:
        return Drawn("4x6", range(4 * self.next - 4, 4 * self.next))

    def clip_ids(self, drawn: Drawn) -> list[str]:
        return [f"clip {position}" for position in drawn.positions]

    def metrics(self) -> dict[str, float]:
        return {"bad_records": 2.0} if self.next > 6 else {}

    def state(self) -> dict[str, Any]:
        return {"next": self.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.next = state["next"]


def make_model(rngs: nnx.Rngs) -> Linear:
    return Linear(6, 4, ("embed", "mlp"), rngs=rngs)


def loss(
    model: Linear, batch: jax.Array, moment: Moment, rows: int
) -> tuple[jax.Array, dict[str, Any]]:
    noise = jax.random.normal(moment.key, batch.shape)
    return jnp.mean((model(batch + noise) - jnp.sum(batch, -1, keepdims=True)) ** 2), {}


def make_run(
    directory: Path,
    stream: Stream | None = None,
    config: TrainConfig = CONFIG,
    loss_function: Callable[..., Any] = loss,
    **changes: Any,
) -> Run:
    mesh = eight_device_mesh()
    optimizer = make_optimizer(config.optimizer, config.steps)
    run = Run(
        name="tiny",
        directory=directory,
        config=config,
        mesh=mesh,
        step=TrainStep(loss_function, optimizer, config.ema_decay, config.micro_batches),
        batches=[jax.ShapeDtypeStruct((4, 6), jnp.float32, sharding=rows_sharding(mesh))],
        key=jax.device_put(jax.random.key(5), replicated(mesh)),
        data=stream or Stream(),
        prepare=lambda batch: Prepared(jax.device_put(batch, rows_sharding(mesh)), 24),
        init=lambda: init_state(make_model, optimizer, jax.random.key(0), mesh),
        abstract=lambda: abstract_state(make_model, optimizer, mesh),
        meta={"fingerprint": "abc"},
        work={"4x6": Work(1000, 1000)},
    )
    return dataclasses.replace(run, **changes)


def lines(run: Run) -> list[dict[str, Any]]:
    text = (run.directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(run: Run) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(run) if "loss" in line}


def assert_equal(found: TrainState, expected: TrainState) -> None:
    for name, array in named(expected).items():
        np.testing.assert_array_equal(named(found)[name], array, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TrainState]:
    """A run that nothing stopped."""
    run = make_run(tmp_path_factory.mktemp("whole"))
    return run, train(run)


def test_it_logs_the_first_step_every_third_and_the_last(whole: tuple[Run, TrainState]) -> None:
    run, state = whole
    assert int(state.step) == 12
    assert list(losses(run)) == [1, 3, 6, 9, 12]
    for name in ("gradient_norm", "update_norm", "steps_per_second", "tokens_per_second"):
        assert all(line[name] >= 0 for line in lines(run))


def test_it_logs_what_the_loader_has_to_tell(whole: tuple[Run, TrainState]) -> None:
    told = {line["step"]: line.get("bad_records") for line in lines(whole[0]) if "loss" in line}
    assert told[1] is None
    assert told[9] == told[12] == 2.0


def test_it_keeps_the_newest_checkpoints(whole: tuple[Run, TrainState]) -> None:
    run, state = whole
    checkpoints = Checkpoints(run.directory / "checkpoints")
    assert checkpoints.latest() == 12
    meta = checkpoints.meta()
    assert (meta["fingerprint"], meta["position"]) == ("abc", {"next": 12})
    assert_equal(checkpoints.restore(run.abstract()), state)
    checkpoints.close()


@pytest.mark.parametrize("stop_at", [5, 6, 8, 9, 11])
def test_a_stopped_run_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: tuple[Run, TrainState], stop_at: int
) -> None:
    with pytest.raises(Stopped):
        train(make_run(tmp_path, Stream(stop_at)))
    run = make_run(tmp_path)
    assert_equal(train(run), whole[1])
    told = [[(line["step"], line.get("loss")) for line in lines(each)] for each in (run, whole[0])]
    assert told[0] == told[1]


def test_lines_up_to_a_checkpoint_are_written_before_it(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, log_every=4)
    with pytest.raises(Stopped):  # right after the save of step 4
        train(make_run(tmp_path, Stream(stop_at=5), config))
    train(make_run(tmp_path, None, config))
    assert {1, 4, 8, 12} <= set(losses(make_run(tmp_path)))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, whole: tuple[Run, TrainState]) -> None:
    run = make_run(tmp_path)
    train(run)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert_equal(train(make_run(tmp_path)), whole[1])
    assert (tmp_path / "metrics.jsonl").read_text() == before


def incidents(run: Run) -> list[dict[str, Any]]:
    text = (run.directory / "incidents.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_step_that_is_no_number_is_skipped_and_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, Stream(broken=range(6, 8)))
    state = train(run)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert all(np.isfinite(loss) for loss in losses(run).values())
    assert [(line["step"], line["what"], line["clips"][0]) for line in incidents(run)] == [
        (6, "skipped", "clip 20"),
        (7, "skipped", "clip 24"),
    ]
    # Two updates less, as a run has that never saw these batches but counts their steps.
    assert int(state.opt_state[1][0].count) == 10
    again = make_run(tmp_path / "stopped", Stream(stop_at=9, broken=range(6, 8)))
    with pytest.raises(Stopped):
        train(again)
    assert_equal(train(dataclasses.replace(again, data=Stream(broken=range(6, 8)))), state)
    assert incidents(again) == incidents(run)


def test_so_many_in_a_row_stop_the_run_also_over_a_restart(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_skips=5)
    with pytest.raises(Stopped):
        train(make_run(tmp_path, Stream(stop_at=10, broken=range(7, 12)), config))
    with pytest.raises(NonFiniteError, match="tiny: loss or gradients of 5 steps in a row, the la"):
        train(make_run(tmp_path, Stream(broken=range(7, 12)), config))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = checkpoints.restore(make_run(tmp_path).abstract())
    checkpoints.close()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert train(make_run(tmp_path / "four", Stream(broken=range(8, 12)), config)).step == 12


def test_an_update_that_is_no_number_is_not_saved_though_its_gradients_are(tmp_path: Path) -> None:
    run = make_run(tmp_path, config=dataclasses.replace(CONFIG, save_every=1))
    steep = optax.chain(run.step.optimizer, optax.scale(jnp.inf))
    step = dataclasses.replace(run.step, optimizer=steep)
    mesh = run.mesh
    run = dataclasses.replace(
        run, step=step, init=lambda: init_state(make_model, steep, jax.random.key(0), mesh)
    )
    with pytest.raises(NonFiniteError, match="tiny: the update of step 1 is not finite though"):
        train(run)
    assert not any((tmp_path / "checkpoints").iterdir())


def test_a_run_of_another_config_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(make_run(tmp_path, Stream(stop_at=6)))
    with pytest.raises(CheckpointError, match="holds a run of config abc, this one is xyz"):
        train(make_run(tmp_path, meta={"fingerprint": "xyz"}))
    assert Checkpoints(tmp_path / "checkpoints").latest() == 4


def test_evaluators_see_the_state_of_their_step_and_write_beside_the_loss(tmp_path: Path) -> None:
    seen = []

    def evaluator(state: TrainState, step: int, writer: Any) -> None:
        seen.append((int(state.step), step))
        writer.scalars(step, {"psnr_db": 30.0})

    rarely = Evaluator(7, lambda state, step, writer: seen.append((int(state.step), -step)))
    run = make_run(tmp_path, evaluators=[Evaluator(6, evaluator), rarely])
    train(run)
    assert seen == [(6, 6), (7, -7), (12, 12), (12, -12)]
    assert [line["step"] for line in lines(run)] == [1, 3, 6, 6, 9, 12, 12]
    assert all(line["steps_per_second"] > 0 for line in lines(run) if "loss" in line)


def test_the_state_keeps_its_layout_and_the_step_is_compiled_once(
    tmp_path: Path, whole: tuple[Run, TrainState]
) -> None:
    traces = []

    def counted(*inputs: Any) -> Any:
        traces.append(1)
        return loss(*inputs)

    run = make_run(tmp_path, loss_function=counted)
    state = train(run)
    assert len(traces) == 1
    wanted = [leaf.sharding for leaf in jax.tree.leaves(run.abstract())]
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == wanted


def test_nothing_is_compiled_after_the_first_step(tmp_path: Path) -> None:
    compiled: list[str] = []

    class Watched(Stream):
        def __next__(self) -> np.ndarray:
            if self.next == 2:
                jax.monitoring.register_event_duration_secs_listener(
                    lambda event, seconds, **_: compiled.append(event)
                )
            return super().__next__()

    config = dataclasses.replace(CONFIG, save_every=12)
    try:
        train(make_run(tmp_path, Watched(), config))
        assert not [event for event in compiled if "compile" in event]
        jax.jit(lambda x: x + 5)(jnp.ones(3))
        assert [event for event in compiled if "compile" in event]  # it would have been seen
    finally:
        jax.monitoring.clear_event_listeners()


def test_a_batch_of_an_undeclared_shape_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    batches = [jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=run.batches[0].sharding)]
    with pytest.raises(ShapeError, match="no program was compiled for a batch of 4x6, only for 8x"):
        train(dataclasses.replace(run, batches=batches))


def test_micro_batches_move_the_data_by_as_many(tmp_path: Path, capsys: Any) -> None:
    config = dataclasses.replace(CONFIG, micro_batches=3)
    state = train(make_run(tmp_path / "whole", config=config))
    assert "tiny: 2 programs ready in " in capsys.readouterr().out
    checkpoints = Checkpoints(tmp_path / "whole" / "checkpoints")
    assert checkpoints.meta()["position"] == {"next": 36}
    with pytest.raises(Stopped):
        train(make_run(tmp_path / "stopped", Stream(stop_at=20), config))
    assert_equal(train(make_run(tmp_path / "stopped", config=config)), state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batches": 0}, "micro_batches=0 must be positive"),
        ({"steps": 0}, "must be positive"),
        ({"save_every": 0}, "must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 must lie in \[0, 1\)"),
    ],
    ids=str,
)
def test_a_rhythm_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)
