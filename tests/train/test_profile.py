"""A trace has the steps that were asked for, and programs say which part of a model an op is of."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.errors import ConfigError
from sora_jax.models.vae import VAE
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.profile import Profiler, ProfileWindow
from sora_jax.train.step import Moment
from tests import tiny


@pytest.mark.parametrize("text", ["", "10", "15:10", "0:3", "a:b", "1:2:3", "-1:2", "1.5:2"])
def test_what_is_no_window_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--profile_steps={text} is no FIRST:LAST of steps"):
        ProfileWindow.parse(text)


def traced(monkeypatch: pytest.MonkeyPatch, steps: range, window: str | None) -> list[Any]:
    """What is done, and when, in a loop over the steps."""
    done: list[Any] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda where: done.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: done.append("stop"))
    profiler = Profiler(ProfileWindow.parse(window) if window else None, Path("nowhere"))
    for step in steps:
        profiler.before(step)
        done.append(step)
        profiler.after(step)
    profiler.close()
    return done


def test_the_window_is_traced_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traced(monkeypatch, range(1, 6), "2:3") == [1, "start", 2, 3, "stop", 4, 5]
    assert traced(monkeypatch, range(1, 3), "2:2") == [1, "start", 2, "stop"]
    # A restart in the window, a run that ends in it, one that begins after it, and none.
    assert traced(monkeypatch, range(3, 6), "2:4") == ["start", 3, 4, "stop", 5]
    assert traced(monkeypatch, range(1, 3), "2:9") == [1, "start", 2, "stop"]
    assert traced(monkeypatch, range(5, 7), "2:3") == [5, 6]
    assert traced(monkeypatch, range(1, 3), None) == [1, 2]


def test_a_trace_is_where_tensorboard_looks(tmp_path: Path) -> None:
    profiler = Profiler(ProfileWindow.parse("1:1"), tmp_path)
    profiler.before(1)
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(8)))
    profiler.after(1)
    [trace] = (tmp_path / "plugins" / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0


def test_programs_name_the_parts_of_the_models() -> None:
    model = jax.eval_shape(lambda: tiny.make_generator(nnx.Rngs(0)))
    batch, key = tiny.latent_batch(0), jax.random.key(0)
    loss = diffusion_loss(DiffusionConfig())
    grad = jax.jit(jax.grad(lambda *inputs: loss(*inputs, Moment(key, 0), 4)[0]))
    program = grad.lower(model, batch).as_text(debug_info=True)
    parts = ("text", "modulation", "patches", "self_attention", "cross_attention", "mlp")
    # Going back, they are called transpose(jvp(mlp)) and so on.
    assert [part for part in parts if not re.search(rf"\b{part}\)*/", program)] == []
    vae = jax.eval_shape(lambda: VAE(tiny.VAE, rngs=nnx.Rngs(0)))
    coded = jax.jit(lambda vae, video: vae.decode(vae.encode(video)[0]))
    program = coded.lower(vae, jnp.zeros((1, 5, 8, 8, 3))).as_text(debug_info=True)
    assert [part for part in ("vae_encode", "vae_decode") if f"{part}/" not in program] == []
