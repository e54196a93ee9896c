"""Programs compiled for small topologies: their memory, and by how much one does not fit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sora_jax.pod.compiler import OutOfMemory, compile_for
from sora_jax.pod.topology import open_topology
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.train.compiler_options import OPTIONS

pytest.importorskip("libtpu")

MEBIBYTE = 2**20
GIBIBYTE = 2**30
LAYERS, WIDTH = 8, 1024
WIDE = 4096  # whose activations VMEM does not hold; a fifth as fast to compile


def lower(
    function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct, name: str, **how: Any
) -> jax.stages.Lowered:
    """The function lowered for one device of a topology."""
    mesh = Mesh(np.array(open_topology(name).devices[:1]), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.jit(function, in_shardings=sharding, out_shardings=sharding, **how).lower(*arguments)


def lower_layers(name: str, slices: int = 1, width: int = WIDTH, **how: Any) -> jax.stages.Lowered:
    """The gradient of a few layers for all devices of a topology, with the batch split."""

    def loss(weights: jax.Array, inputs: jax.Array) -> jax.Array:
        outputs, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), inputs, weights)
        return jnp.square(outputs.astype(jnp.float32)).mean()

    mesh = Mesh(np.array(open_topology(name, slices).devices), ("batch",))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("batch",)))
    return jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole, **how).lower(
        jax.ShapeDtypeStruct((LAYERS, width, width), jnp.bfloat16),
        jax.ShapeDtypeStruct((width, width), jnp.bfloat16),
    )


@pytest.mark.parametrize(
    ("name", "slices", "devices"),
    [
        ("v5e:2x2", 1, 4),
        ("v6e:2x2", 1, 4),
        ("v5p:2x2x1", 1, 4),
        ("v5p:2x2x1", 2, 8),
        ("tpu7x:2x2x1", 1, 8),
    ],
)
def test_arguments_of_known_size_show(
    name: str, slices: int, devices: int, capfd: pytest.CaptureFixture[str]
) -> None:
    compilation = compile_for(lower_layers(name, slices, WIDE))
    assert capfd.readouterr() == ("", "")
    memory = compilation.memory
    weights = LAYERS * WIDE * WIDE * 2
    assert memory.logged
    assert memory.arguments == pytest.approx(weights + WIDE * WIDE * 2 / devices, rel=0.01)
    assert memory.outputs == pytest.approx(weights, rel=0.01)
    # A gradient needs the activations of all layers.
    assert memory.program >= memory.unpadded >= LAYERS * WIDE * WIDE * 2 / devices
    assert 128 * MEBIBYTE < memory.reserved < 512 * MEBIBYTE
    parts = memory.reserved + memory.program + memory.arguments + memory.outputs
    assert memory.total == parts
    assert 0 < memory.vmem <= 128 * MEBIBYTE
    assert memory.host == 0
    assert 0 < compilation.seconds < 60
    text = compilation.compiled.as_text()
    assert text is not None
    assert "all-reduce" in text or "reduce-scatter" in text


def test_what_is_returned_in_place_of_an_argument_takes_nothing() -> None:
    memory = compile_for(lower_layers("v5p:2x2x1", donate_argnums=0)).memory
    assert memory.outputs == 0


def test_a_remembered_program_is_compiled_again() -> None:
    lowered = lower_layers("v5e:2x2")
    first = compile_for(lowered)
    assert compile_for(lowered).memory == first.memory
    assert compile_for(lower_layers("v5e:2x2")).memory == first.memory


def test_an_unknown_flag_is_refused_with_its_name() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_tpu_no_such_flag"):
        compile_for(lower_layers("v5e:2x2"), {"xla_tpu_no_such_flag": True})


def test_a_program_too_small_for_the_log_is_analysed() -> None:
    block = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    memory = compile_for(lower(lambda x, y: x + y, block, block, name="v5e:2x2")).memory
    assert not memory.logged
    assert (memory.arguments, memory.outputs) == (8 * MEBIBYTE, 4 * MEBIBYTE)
    assert 12 * MEBIBYTE <= memory.total < 16 * MEBIBYTE


def test_a_program_that_does_not_fit_says_by_how_much() -> None:
    arguments = jax.ShapeDtypeStruct((16, 3 * GIBIBYTE // 4), jnp.bfloat16)
    lowered = lower(jnp.tanh, arguments, name="v5e:2x2")
    with pytest.raises(OutOfMemory, match="needs 48.00 GiB of HBM on each device, and 15") as info:
        compile_for(lowered)
    shortage = info.value
    assert (shortage.space, shortage.kernel) == ("hbm", None)
    assert shortage.needed == pytest.approx(48 * GIBIBYTE, rel=0.01)
    assert shortage.available == pytest.approx(16 * GIBIBYTE, rel=0.02)
    assert "Ran out of memory" in shortage.log
    # The same program on a larger chip.
    assert compile_for(lower(jnp.tanh, arguments, name="v5p:2x2x1")).memory.total > shortage.needed


def lower_doubling(rows: int) -> jax.stages.Lowered:
    """A Pallas kernel with blocks of so many rows of 32 KiB, twice two of which are held."""
    shape = jax.ShapeDtypeStruct((8192, 8192), jnp.float32)

    def kernel(x: Any, y: Any) -> None:
        y[...] = 2 * x[...]

    def double(x: jax.Array) -> jax.Array:
        block = pl.BlockSpec((rows, 8192), lambda i: (i, 0))
        return pl.pallas_call(
            kernel,
            name="doubling",
            grid=(8192 // rows,),
            in_specs=[block],
            out_specs=block,
            out_shape=shape,
        )(x)

    return lower(double, shape, name="v5e:2x2")


@pytest.mark.parametrize("rows", [512, 4096], ids=["together", "one block"])
def test_a_kernel_that_overflows_vmem_is_named(rows: int) -> None:
    with pytest.raises(OutOfMemory, match="the kernel doubling") as info:
        compile_for(lower_doubling(rows))
    assert info.value.space == "vmem"
    assert info.value.needed > info.value.available >= 16 * MEBIBYTE


def test_flags_reach_the_compiler() -> None:
    lowered = lower_doubling(256)
    with pytest.raises(OutOfMemory, match="needs 32.00 MiB of VMEM on each device, and 16.00"):
        compile_for(lowered)
    assert compile_for(lowered, {"xla_tpu_scoped_vmem_limit_kib": 65536})


@pytest.fixture
def disk_cache(tmp_path: Path) -> Iterator[Path]:
    """A new persistent cache of jax that keeps everything."""
    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [jax.config.values[name] for name in settings]
    for name, value in zip(settings, (str(tmp_path), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in zip(settings, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_the_cache_on_disk_is_left_alone(disk_cache: Path) -> None:
    jax.jit(lambda x: x + 1)(jnp.ones(3))
    kept = set(disk_cache.iterdir())
    assert kept
    assert compile_for(lower_layers("v5p:2x2x1")).log
    assert set(disk_cache.iterdir()) == kept
    jax.jit(lambda x: x + 2)(jnp.ones(3))
    assert set(disk_cache.iterdir()) > kept


def test_weights_are_whole_before_they_are_multiplied() -> None:
    """Piece by piece, a narrow matrix over many devices fills little of a matrix unit."""
    mesh = make_mesh(MeshConfig(), open_topology("v5e:2x4").devices)
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    lowered = jax.jit(jnp.matmul, in_shardings=(split, split), out_shardings=split).lower(
        jax.ShapeDtypeStruct((8, 16_384, 768), jnp.bfloat16),
        jax.ShapeDtypeStruct((768, 3_072), jnp.bfloat16),
    )
    assert "collective-permute" in str(compile_for(lowered).compiled.as_text())
    told = str(compile_for(lowered, OPTIONS["tpu"]).compiled.as_text())
    assert "collective-permute" not in told
    assert "all-gather" in told
