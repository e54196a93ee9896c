"""The published steps: what was trained on what, how fast, with which flags, and where it stands.

Flags are those of the recipe, as options of one compilation; left out are those that a compilation
does not take (of the chip's configuration, and of the runtime).
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from benchmarks.published import decoder, wan
from benchmarks.published.decoder import Decoder
from benchmarks.published.splash import SplashBlocks
from benchmarks.published.wan import Wan
from sora_jax.pod.compiler import Options
from sora_jax.pod.topology import Topology

AXES = ("replica", "fsdp", "tensor")
ASYNC_GATHER: Options = {
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
    "xla_enable_async_all_gather": True,
}
DATA_PARALLEL: Options = {
    "xla_tpu_enable_data_parallel_all_reduce_opt": True,
    "xla_tpu_data_parallel_opt_different_sized_ops": True,
}
HOST_OFFLOAD: Options = {
    "xla_tpu_enable_all_experimental_scheduler_features": True,
    "xla_tpu_enable_scheduler_memory_pressure_tracking": True,
    "xla_tpu_host_transfer_overlap_limit": 24,
    "xla_tpu_aggressive_opt_barrier_removal": "ENABLED",
    "xla_lhs_prioritize_async_depth_over_stall": "ENABLED",
    "xla_tpu_enable_ag_backward_pipelining": True,
    "xla_should_allow_loop_variant_parameter_in_chain": "ENABLED",
    "xla_should_add_loop_invariant_op_in_chain": "ENABLED",
    "xla_max_concurrent_host_send_recv": 100,
    "xla_tpu_scheduler_percent_shared_memory_limit": 100,
    "xla_latency_hiding_scheduler_rerun": 2,
}
SCATTER_LAYOUT: Options = {
    "xla_tpu_use_minor_sharding_for_major_trivial_input": True,
    "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": 1,
    "xla_tpu_assign_all_reduce_scatter_layout": True,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A published step. seconds: of a step, on the topology times slices. axes: sizes of the mesh.
    blocks: of its splash kernels. source: where the figure stands, by public name.
    stands_for: where what is compiled differs from what ran. alternative: another reading of a case
    that is there already, of which errors are not counted. other_blocks: the kernels are timed with
    these too, where sources do not agree about them."""

    name: str
    source: str
    seconds: float
    topology: str
    axes: Mapping[str, int]
    model: Wan | Decoder
    options: Options
    slices: int = 1
    stands_for: str = ""
    alternative: bool = False
    other_blocks: tuple[SplashBlocks, ...] = ()

    @property
    def causal(self) -> bool:
        return isinstance(self.model, Decoder)

    def lowered(self, mesh: Mesh) -> jax.stages.Lowered:
        if isinstance(self.model, Wan):
            return wan.lowered(self.model, mesh)
        return decoder.lowered(self.model, mesh)

    def mesh(self, topology: Topology) -> Mesh:
        """As the peers lay theirs out, with what crosses slices in the first axis."""
        sizes = list(self.axes.values())
        devices = list(topology.devices)
        if self.slices > 1:
            inside = (sizes[0] // self.slices, *sizes[1:])
            across = (self.slices, *(1 for _ in sizes[1:]))
            array = mesh_utils.create_hybrid_device_mesh(
                inside, across, devices, allow_split_physical_axes=True
            )
        else:
            array = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(np.asarray(array), tuple(self.axes), axis_types=(AxisType.Auto,) * len(sizes))


# Where none are set, MaxDiffusion takes blocks of 1,024 for bfloat16, MaxText of 512.
WAN_BLOCKS = SplashBlocks(1024, 1024, 1024, fused=False)
MAXTEXT_BLOCKS = SplashBlocks(512, 512, 512, fused=False)
LARGE_BLOCKS = SplashBlocks(2048, 2048, 2048, fused=True)
V5P_OPTIONS: Options = {
    **ASYNC_GATHER,
    **DATA_PARALLEL,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_megacore_fusion_allow_ags": False,
    "xla_enable_async_collective_permute": True,
    "xla_tpu_enable_ag_backward_pipelining": True,
}
# The README's command keeps these in the host's memory; its text says that all is computed again.
WAN_OFFLOADED = Wan(
    rows=1, blocks=WAN_BLOCKS, offloaded=("hidden_states", "self_attn", "cross_attn")
)
WAN_ON_V5P = Wan(rows=1, blocks=WAN_BLOCKS)
WAN_V5P_OPTIONS: Options = {
    **V5P_OPTIONS,
    **SCATTER_LAYOUT,
    "xla_tpu_scoped_vmem_limit_kib": 65536,
    "xla_tpu_enable_async_all_to_all": True,
}
WAN_ON_TPU7X = Wan(rows=32, blocks=WAN_BLOCKS)
LLAMA_8B = Decoder(
    layers=32,
    width=4096,
    heads=32,
    key_heads=8,
    mlp=14336,
    vocabulary=128256,
    rows=3,
    tokens=8192,
    blocks=LARGE_BLOCKS,
    offloaded=("decoder_layer_input", "query_proj", "key_proj", "value_proj", "out_proj"),
)
LLAMA_70B = Decoder(
    layers=80,
    width=8192,
    heads=64,
    key_heads=8,
    mlp=28672,
    vocabulary=128256,
    rows=2,
    tokens=8192,
    blocks=LARGE_BLOCKS,
    kept=("decoder_layer_input", "query_proj", "key_proj", "value_proj", "context"),
    moments="bfloat16",
)
MAXTEXT_32B = Decoder(
    layers=32,
    width=8192,
    heads=64,
    key_heads=64,
    mlp=28672,
    vocabulary=32000,
    rows=6,
    tokens=2048,
    blocks=MAXTEXT_BLOCKS,
    kept=(
        "query_proj",
        "key_proj",
        "value_proj",
        "out_proj",
        "mlpwi_0",
        "mlpwi_1",
        "mlpwo",
    ),
)

CASES = {
    case.name: case
    for case in (
        Case(
            name="C1",
            model=WAN_ON_V5P,
            source="MaxDiffusion README, Wan 2.1 training",
            seconds=36.006,
            topology="v5p:2x2x1",
            axes={"data": 1, "context": 4},
            options=WAN_V5P_OPTIONS,
            stands_for="all computed again, as the text says; without flags for host offload",
            other_blocks=(SplashBlocks(512, 512, 512, fused=False),),
        ),
        Case(
            name="C1 offloaded",
            model=WAN_OFFLOADED,
            source="the same, hidden states and attention offloaded as its command says",
            seconds=36.006,
            topology="v5p:2x2x1",
            axes={"data": 1, "context": 4},
            options=WAN_V5P_OPTIONS,
            stands_for="without the flags for host offload",
            alternative=True,
        ),
        Case(
            name="C2",
            model=WAN_ON_TPU7X,
            source="tpu-recipes, training/ironwood, wan2.1-14b",
            seconds=24.58,
            topology="tpu7x:4x4x4",
            axes={"data": 32, "context": 4},
            options={
                "xla_enable_async_all_gather": True,
                "xla_tpu_enable_async_collective_fusion": True,
                "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
                "xla_enable_async_all_reduce": True,
                "xla_max_concurrent_async_all_gathers": 4,
                "xla_tpu_enable_async_all_to_all": True,
                "xla_latency_hiding_scheduler_rerun": 5,
                "xla_tpu_scoped_vmem_limit_kib": 65536,
            },
            stands_for="without flags for SparseCore, and of code generation",
            other_blocks=(SplashBlocks(2048, 2048, 512, fused=True),),
        ),
        Case(
            name="C3",
            model=LLAMA_8B,
            source="tpu-recipes, training/trillium, Llama3.1-8B on v6e-8",
            seconds=3.443,
            topology="v6e:2x4",
            axes={"replica": 1, "fsdp": 8, "tensor": 1},
            options={
                **ASYNC_GATHER,
                **DATA_PARALLEL,
                **HOST_OFFLOAD,
                **SCATTER_LAYOUT,
                "xla_tpu_scoped_vmem_limit_kib": 98304,
                "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
                "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": False,
                "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1000000,
            },
        ),
        Case(
            name="C4",
            model=MAXTEXT_32B,
            source="MaxText README for v5p, 32B on v5p-128",
            seconds=7.30,
            topology="v5p:4x4x4",
            axes={"replica": 1, "fsdp": 16, "tensor": 4},
            options=V5P_OPTIONS,
        ),
        Case(
            name="C5",
            model=MAXTEXT_32B,
            source="MaxText README for v5p, 32B on 2 x v5p-128",
            seconds=7.50,
            topology="v5p:4x4x4",
            slices=2,
            axes={"replica": 2, "fsdp": 16, "tensor": 4},
            options=V5P_OPTIONS,
        ),
        Case(
            name="C6",
            model=LLAMA_70B,
            source="tpu-recipes, training/ironwood, Llama3.1-70B on 4x4x4",
            seconds=12.20,
            topology="tpu7x:4x4x4",
            axes={"replica": 1, "fsdp": 128, "tensor": 1},
            options={
                "xla_tpu_scoped_vmem_limit_kib": 61440,
                "xla_tpu_bf16_emission_mode": "NATIVE_EMISSION",
            },
        ),
    )
}
