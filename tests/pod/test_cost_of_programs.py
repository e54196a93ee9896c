"""Costs of whole programs, compiled here for small topologies of which no chip is there."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sora_jax.pod.compiler import compile_for
from sora_jax.pod.cost import Cost, cost_of
from sora_jax.pod.topology import Topology, open_topology

P = PartitionSpec
LAYERS, MEGABYTE = 5, 2**20


@functools.cache
def topology(name: str, slices: int = 1) -> Topology:
    pytest.importorskip("libtpu")
    return open_topology(name, slices)


def mesh_of(opened: Topology, **axes: int) -> Mesh:
    """Mesh whose axes are those of the torus; libtpu numbers devices host by host."""

    def place(device: Any) -> tuple:
        return getattr(device, "slice_index", 0), device.coords

    devices = sorted(opened.devices, key=place)[: math.prod(axes.values())]
    return Mesh(np.array(devices).reshape(tuple(axes.values())), tuple(axes))


def argument(mesh: Mesh, shape: tuple[int, ...], *spec: Any, **options: Any) -> Any:
    sharding = NamedSharding(mesh, P(*spec), **options)
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)


def cost(opened: Topology, mesh: Mesh, f: Callable, *arguments: Any, **options: Any) -> Cost:
    compilation = compile_for(jax.jit(f, **options).lower(*arguments))
    return cost_of(compilation.compiled.as_text(), mesh, opened.chip)


def layers(x: jax.Array, weights: jax.Array) -> jax.Array:
    return lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0]


def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
    return layers(x, weights).astype(jnp.float32).sum()


def test_a_scan_counts_each_of_its_products() -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)
    found = cost(
        opened, mesh, layers, argument(mesh, (512, 256)), argument(mesh, (LAYERS, 256, 256))
    )
    assert found.matmul_flops == LAYERS * 2 * 512 * 256 * 256
    assert found.matmul_cycles / opened.chip.clock_hz > found.matmul_flops / opened.chip.peak_flops
    assert found.other_cycles > 0
    assert (found.kernels, found.collectives, found.host_bytes) == ((), (), 0)
    assert found.unknown_loops == ()


def test_a_step_of_gradients_counts_three_products_a_layer_and_four_when_it_recomputes() -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)
    arguments = argument(mesh, (LAYERS, 256, 256)), argument(mesh, (512, 256))
    product = 2 * 512 * 256 * 256

    def again(weights: jax.Array, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(x @ weight), None

        return lax.scan(jax.checkpoint(layer), x, weights)[0].astype(jnp.float32).sum()

    kept = cost(opened, mesh, jax.grad(loss, (0, 1)), *arguments)
    assert kept.matmul_flops == 3 * LAYERS * product
    assert cost(opened, mesh, jax.grad(again, (0, 1)), *arguments).matmul_flops == (
        4 * LAYERS * product
    )


def test_a_loop_that_the_data_ends_is_named_and_counted_once() -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)

    def until(x: jax.Array, weight: jax.Array) -> jax.Array:
        return lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: jnp.tanh(x @ weight), x)

    found = cost(opened, mesh, until, argument(mesh, (512, 256)), argument(mesh, (256, 256)))
    assert len(found.unknown_loops) == 1
    assert found.matmul_flops == 2 * 512 * 256 * 256


@pytest.mark.parametrize(("name", "a", "b"), [("v5p:2x2x1", 2, 2), ("v5e:4x4", 4, 4)])
def test_weights_gathered_in_a_scan_are_gathered_over_their_axis(name: str, a: int, b: int) -> None:
    opened = topology(name)
    mesh = mesh_of(opened, a=a, b=b)
    found = cost(
        opened,
        mesh,
        layers,
        argument(mesh, (1024 * a * b, 2048), ("a", "b")),
        argument(mesh, (LAYERS, 2048, 2048), None, "b"),
        out_shardings=NamedSharding(mesh, P(("a", "b"))),
    )
    gathered = [use for use in found.collectives if use.kind == "all-gather"]
    assert {use.axes for use in gathered} == {("b",)}
    assert sum(use.calls for use in gathered) == LAYERS
    assert sum(use.bytes for use in gathered) == LAYERS * 2048 * 2048 * 2
    assert sum(use.sent_bytes for use in gathered) == LAYERS * 2048 * 2048 * 2 * (b - 1) // b
    assert found.matmul_flops == LAYERS * 2 * 1024 * 2048 * 2048


def gather(x: jax.Array) -> jax.Array:
    return lax.all_gather(x, "b", tiled=True)[:1024]


def scatter(x: jax.Array) -> jax.Array:
    return jnp.tile(lax.psum_scatter(x, "b", tiled=True), (4, 1))


def exchange(x: jax.Array) -> jax.Array:
    return lax.all_to_all(x, "a", 0, 1, tiled=True).reshape(x.shape)


def shift(x: jax.Array) -> jax.Array:
    return lax.ppermute(x, "b", [(place, (place + 1) % 4) for place in range(4)])


# Seconds, as megabytes that pass one link. On 4 x 4 chips a row is a line, with one link at its
# end; in an all-to-all half of the row sends to the other half over one link.
@pytest.mark.parametrize(
    ("body", "kind", "axes", "whole", "passing"),
    [
        (lambda x: lax.psum(x, ("a", "b")), "all-reduce", ("a", "b"), 2, 2 * 2 * 15 / 16 / 2),
        (lambda x: lax.psum(x, "a"), "all-reduce", ("a",), 2, 2 * 2 * 3 / 4),
        (gather, "all-gather", ("b",), 8, 8 * 3 / 4),
        (scatter, "reduce-scatter", ("b",), 2, 2 * 3 / 4),
        (exchange, "all-to-all", ("a",), 2, 2),
        (shift, "collective-permute", ("b",), 2, 2),
    ],
)
def test_each_kind_of_collective_in_a_loop(
    body: Callable, kind: str, axes: tuple[str, ...], whole: float, passing: float
) -> None:
    opened = topology("v5e:4x4")
    mesh = mesh_of(opened, a=4, b=4)

    def looped(x: jax.Array) -> jax.Array:
        return lax.scan(lambda x, _: (jnp.tanh(body(x)), None), x, None, length=LAYERS)[0]

    sharded = jax.shard_map(
        looped, mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b"), check_vma=False
    )
    found = cost(opened, mesh, sharded, argument(mesh, (4096, 4096), "a", "b"))
    (use,) = found.collectives
    assert (use.kind, use.axes, use.group_size) == (kind, axes, 4 ** len(axes))
    assert use.calls == LAYERS
    assert use.bytes == LAYERS * whole * MEGABYTE
    seconds = LAYERS * passing * MEGABYTE / opened.chip.link_bandwidth
    assert use.seconds == pytest.approx(seconds)


def test_gradients_are_summed_over_the_slices_on_the_network() -> None:
    opened = topology("v5p:2x2x1", slices=2)
    mesh = mesh_of(opened, replica=2, fsdp=4)
    found = cost(
        opened,
        mesh,
        jax.grad(loss),
        argument(mesh, (LAYERS, 1024, 1024), None, "fsdp"),
        argument(mesh, (2048, 1024), ("replica", "fsdp")),
        out_shardings=NamedSharding(mesh, P(None, "fsdp")),
    )
    summed = [use for use in found.collectives if use.axes == ("replica",)]
    assert {use.kind for use in summed} == {"all-reduce"}
    size = LAYERS * 1024 * 1024 // 4 * 2
    assert sum(use.calls for use in summed) == LAYERS
    assert sum(use.bytes for use in summed) == size
    seconds = sum(use.seconds for use in summed)
    assert seconds == pytest.approx(size / opened.chip.dcn_bandwidth)
    rest = {(use.kind, use.axes) for use in found.collectives if use not in summed}
    assert rest == {("all-gather", ("fsdp",)), ("reduce-scatter", ("fsdp",))}


@pytest.mark.parametrize("fused", [False, True])
def test_attention_kernels_in_a_scan(fused: bool) -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)
    rows, heads, queries, keys, width = 2, 4, 1024, 2048, 128
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
    names += () if fused else ("q_dq", "kv_dq")
    blocks = splash_attention_kernel.BlockSizes(
        **{f"block_{name}": 512 for name in names}, use_fused_bwd_kernel=fused
    )
    full = splash_attention_mask.FullMask((queries, keys))
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([full] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=blocks,
    )

    def attended(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        mixed = lax.scan(lambda q, _: (jax.vmap(kernel)(q, k, v), None), q, None, length=LAYERS)
        return mixed[0].astype(jnp.float32).sum()

    arguments = [argument(mesh, (rows, heads, n, width)) for n in (queries, keys, keys)]
    found = cost(opened, mesh, jax.grad(attended, (0, 1, 2)), *arguments)
    product = 2 * rows * heads * queries * keys * width
    assert [use.calls for use in found.kernels] == [LAYERS] * (2 if fused else 3)
    assert [use.flops for use in found.kernels] == [
        LAYERS * products * product for products in ((2, 5) if fused else (2, 4, 3))
    ]
    assert all(use.stated_flops is None for use in found.kernels)
    assert all(use.operands[2] == (rows, heads, queries, width) for use in found.kernels)
    assert found.matmul_flops == 0


def test_what_is_kept_in_the_hosts_memory_is_counted_both_ways() -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["input"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def layer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
        x = jax.ad_checkpoint.checkpoint_name(x, "input")
        return jnp.tanh(jnp.tanh(x @ weight) @ weight), None

    def offloaded(weights: jax.Array, x: jax.Array) -> jax.Array:
        kept = jax.checkpoint(layer, policy=policy)
        return lax.scan(kept, x, weights)[0].astype(jnp.float32).sum()

    arguments = argument(mesh, (LAYERS, 512, 512)), argument(mesh, (1024, 512))
    found = cost(opened, mesh, jax.grad(offloaded), *arguments)
    assert found.host_bytes == 2 * LAYERS * 1024 * 512 * 2


def test_arguments_in_the_hosts_memory_are_counted() -> None:
    opened = topology("v5p:2x2x1")
    mesh = mesh_of(opened, x=1)
    device = NamedSharding(mesh, P())
    found = cost(
        opened,
        mesh,
        lambda x, weight: x @ jax.device_put(weight, device),
        argument(mesh, (1024, 512)),
        argument(mesh, (512, 512), memory_kind="pinned_host"),
    )
    assert found.host_bytes == 512 * 512 * 2
