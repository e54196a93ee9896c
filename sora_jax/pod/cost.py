"""What one run of a compiled program costs a device, walked from its entry with loops repeated.

Counted are the FLOPs and the compiler's estimated cycles, what goes to other devices and the host,
and the calls of kernels, of which the compiler says no cycles. Left out is what cannot be trusted:
`cost_analysis()`, which takes a loop for one run, a kernel for nothing and a collective for a copy.
"""

import collections
import dataclasses
from collections.abc import Iterator

import jax

from sora_jax.pod.chips import Chip
from sora_jax.pod.collectives import Fabric, Transfer, kind_of
from sora_jax.pod.groups import is_dcn
from sora_jax.pod.hlo import HOST, Computation, Instruction, Module, Shape, parse_module
from sora_jax.pod.loops import Scalars, Value, loop_of
from sora_jax.pod.traffic import moved_bytes
from sora_jax.pod.work import (
    attention_flops,
    estimated_cycles,
    kernel_name,
    matmul_flops,
    stated_flops,
)


@dataclasses.dataclass(frozen=True)
class KernelUse:
    """A Pallas kernel on operands of one shape; FLOPs of all its calls together.

    `flops` is attention in which every query sees every key, None for another kernel;
    `stated_flops` is what the kernel itself says, None if it says nothing.
    """

    name: str
    operands: tuple[tuple[int, ...], ...]
    calls: int
    flops: int | None
    stated_flops: int | None


@dataclasses.dataclass(frozen=True)
class CollectiveUse:
    """Collectives of one kind over the same mesh axes; bytes and seconds of all calls together.

    `bytes` is of the whole arrays, gathered or before they are reduced; `sent_bytes` what a device
    sends. `hidden` if there is arithmetic while they run, be it little.
    """

    kind: str
    axes: tuple[str, ...]
    group_size: int
    hidden: bool
    calls: int
    bytes: int
    sent_bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device and one run of the program.

    FLOPs are of matrix products and convolutions outside kernels, as compiled: with what is
    computed again. Cycles are of all that is no kernel and no collective, parted by whether it
    holds a matrix product. `other_seconds`: of what holds none, each operation in the compiler's
    cycles or in the time that memory takes for its bytes, whichever is less. `host_bytes` go to the
    host's memory or come from it. `unknown_loops`: loops that run nobody knows how often, of which
    one run was counted.
    """

    matmul_flops: int
    matmul_cycles: int
    other_cycles: int
    other_seconds: float
    kernels: tuple[KernelUse, ...]
    collectives: tuple[CollectiveUse, ...]
    host_bytes: int
    unknown_loops: tuple[str, ...]


def cost_of(text: str, mesh: jax.sharding.Mesh, chip: Chip) -> Cost:
    """Cost of an optimized HLO text that was compiled for the devices of `mesh`."""
    module = parse_module(text)
    walker = _Walker(module, Fabric(mesh, chip, module.partitions), chip)
    return _summed(walker.tally(module.entry, ()))


@dataclasses.dataclass(frozen=True)
class _Call:
    """A kernel's call, `flops` and `stated` being of one."""

    name: str
    operands: tuple[tuple[int, ...], ...]
    flops: int | None
    stated: int


@dataclasses.dataclass
class _Tally:
    matmul_flops: int = 0
    matmul_cycles: int = 0
    other_cycles: int = 0
    other_seconds: float = 0.0
    host_bytes: int = 0
    kernels: collections.Counter[_Call] = dataclasses.field(default_factory=collections.Counter)
    transfers: collections.Counter[tuple[Transfer, bool]] = dataclasses.field(
        default_factory=collections.Counter
    )
    unknown_loops: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "_Tally", times: int = 1) -> None:
        if not times:
            return
        self.matmul_flops += other.matmul_flops * times
        self.matmul_cycles += other.matmul_cycles * times
        self.other_cycles += other.other_cycles * times
        self.other_seconds += other.other_seconds * times
        self.host_bytes += other.host_bytes * times
        for call, count in other.kernels.items():
            self.kernels[call] += count * times
        for transfer, count in other.transfers.items():
            self.transfers[transfer] += count * times
        self.unknown_loops += [
            name for name in other.unknown_loops if name not in self.unknown_loops
        ]

    def seconds(self, chip: Chip) -> float:
        """About how long it takes: enough to tell the longer of two branches."""
        kernels = sum((call.flops or call.stated) * n for call, n in self.kernels.items())
        transfers = sum(transfer.seconds * n for (transfer, _), n in self.transfers.items())
        matmuls = self.matmul_cycles / chip.clock_hz
        return matmuls + self.other_seconds + kernels / chip.peak_flops + transfers


class _Walker:
    def __init__(self, module: Module, fabric: Fabric, chip: Chip):
        self.module, self.fabric, self.chip = module, fabric, chip

    def tally(self, computation: Computation, arguments: tuple[Value, ...]) -> _Tally:
        total = _Tally()
        schedule = _Schedule(computation)
        for one in computation.instructions.values():
            if one.opcode == "while":
                self._loop(total, one, computation, arguments)
            elif one.opcode in ("call", "conditional"):
                total.add(self._costliest(one, computation, arguments))
            elif kernel_name(one):
                total.kernels[_call_of(one, computation)] += 1
            else:
                self._arithmetic(total, one, computation)
                total.host_bytes += _host_bytes(one, computation)
                self._exchange(total, one, computation, schedule)
        return total

    def _loop(
        self,
        total: _Tally,
        one: Instruction,
        computation: Computation,
        arguments: tuple[Value, ...],
    ) -> None:
        loop = loop_of(self.module, computation, one, arguments)
        body = self.module.computations[one.called("body")[0]]
        total.add(self.tally(body, (loop.state,)), 1 if loop.trips is None else loop.trips)
        if loop.trips is None:
            total.unknown_loops.append(one.name)

    def _costliest(
        self, one: Instruction, computation: Computation, arguments: tuple[Value, ...]
    ) -> _Tally:
        """What a call does, or the longest of the branches of a conditional."""
        if one.opcode == "call":
            known = Scalars(self.module, computation, arguments)
            given = tuple(known.value(name) for name in one.operands)
            return self.tally(self.module.computations[one.called("to_apply", "calls")[0]], given)
        names = one.called("branch_computations", "true_computation", "false_computation")
        tallies = [self.tally(self.module.computations[name], ()) for name in names]
        return max(tallies, key=lambda tally: tally.seconds(self.chip))

    def _arithmetic(self, total: _Tally, one: Instruction, computation: Computation) -> None:
        flops = matmul_flops(one, computation)
        if one.opcode == "fusion":
            flops = sum(matmul_flops(inner, where) for inner, where in self._inside(one))
        cycles = estimated_cycles(one)
        total.matmul_flops += flops
        if flops:
            total.matmul_cycles += cycles
        elif cycles:
            total.other_cycles += cycles
            memory = moved_bytes(self.module, computation, one) / self.chip.hbm_bandwidth
            total.other_seconds += min(cycles / self.chip.clock_hz, memory)

    def _exchange(
        self, total: _Tally, one: Instruction, computation: Computation, schedule: "_Schedule"
    ) -> None:
        """Adds the collectives that the instruction is, starts, or holds."""
        found = [(one, computation)] if kind_of(one) else list(self._inside(one))
        for inner, where in found:
            kind = kind_of(inner)
            if kind is None or (_is_step(inner) and not schedule.is_first_step(inner)):
                continue
            if kind == "all-reduce" and one.opcode == "fusion" and _scatters(one, inner):
                kind = "reduce-scatter"
            size = sum(shape.bytes for shape in _flat(where, inner))
            hidden = _is_step(inner) or schedule.is_hidden(one)
            if one.opcode == "fusion":
                hidden |= any(matmul_flops(*pair) for pair in self._inside(one))
            total.transfers[self.fabric.transfer(inner, size, kind), hidden] += 1

    def _inside(self, one: Instruction) -> Iterator[tuple[Instruction, Computation]]:
        """Instructions of what a fusion or an asynchronous call calls, at any depth."""
        if one.opcode not in ("fusion", "call", "async-start", "call-start"):
            return
        for name in one.called("calls", "to_apply", "called_computations"):
            computation = self.module.computations[name]
            for inner in computation.instructions.values():
                yield inner, computation
                yield from self._inside(inner)


def _flat(computation: Computation, one: Instruction) -> list[Shape]:
    return [shape for shapes in computation.operand_shapes(one) for shape in shapes]


def _is_step(one: Instruction) -> bool:
    """Whether a collective is one of several steps, each fused with arithmetic, of the same one."""
    return "async_collective_fusion_config" in one.attributes.get("backend_config", "")


def _scatters(fusion: Instruction, reduced: Instruction) -> bool:
    """Whether a fusion that sums over devices keeps a device's own part only."""
    return sum(s.elements for s in fusion.shapes) < sum(s.elements for s in reduced.shapes)


def _call_of(one: Instruction, computation: Computation) -> _Call:
    name, operands = kernel_name(one) or "", _flat(computation, one)
    dims = tuple(shape.dims for shape in operands)
    return _Call(name, dims, attention_flops(name, operands, one.shapes), stated_flops(one))


def _host_bytes(one: Instruction, computation: Computation) -> int:
    """Bytes of a copy, slice or update between the host's memory and the device's."""
    opcode = one.opcode.removesuffix("-start")
    if opcode not in ("copy", "slice", "dynamic-slice", "dynamic-update-slice"):
        return 0
    operands = [shapes[0] for shapes in computation.operand_shapes(one) if shapes]
    if opcode == "dynamic-update-slice":
        into, moved = operands[0], operands[1]
        return moved.bytes if (into.space == HOST) != (moved.space == HOST) else 0
    # A start has its operands in front of its result, but a copy's result comes first.
    first = len(one.operands) if one.opcode != opcode and opcode != "copy" else 0
    result = one.shapes[first]
    return result.bytes if (result.space == HOST) != (operands[0].space == HOST) else 0


class _Schedule:
    """The order in which a computation's instructions run, and what runs meanwhile."""

    def __init__(self, computation: Computation):
        self.computation = computation
        self.order = list(computation.instructions.values())
        self.places = {one.name: place for place, one in enumerate(self.order)}
        self.steps: set[str] = set()

    def is_first_step(self, one: Instruction) -> bool:
        """Whether no step of the same collective, which has its channel, was asked about before."""
        channel = one.attributes.get("channel_id", one.name)
        known = channel in self.steps
        self.steps.add(channel)
        return not known

    def is_hidden(self, one: Instruction) -> bool:
        """Whether there is arithmetic between the start of a collective and its end."""
        if not one.opcode.endswith("-start") and not is_dcn(one):
            return False
        place = self.places[one.name]
        names = {one.name}
        if is_dcn(one):
            # It is over when what the other slices send is there.
            key = "_xla_host_transfer_rendezvous"
            names = {
                other.name
                for other in self.order
                if other.opcode == "recv" and other.frontend(key) == one.frontend(key)
            }
        busy = False
        for other in self.order[place + 1 :]:
            ours = bool(names & set(other.operands))
            if ours and other.opcode.endswith("-done"):
                return busy
            if ours and other.opcode.endswith("-update"):
                # Only what is handed over here begins the transfer.
                names, busy = {other.name}, False
            busy |= _is_busy(other)
        return True


def _is_busy(one: Instruction) -> bool:
    return bool(
        one.opcode in ("while", "call", "conditional") or kernel_name(one) or estimated_cycles(one)
    )


def _summed(tally: _Tally) -> Cost:
    kernels = [
        KernelUse(
            call.name,
            call.operands,
            calls,
            None if call.flops is None else call.flops * calls,
            call.stated * calls or None,
        )
        for call, calls in tally.kernels.items()
    ]
    uses: dict[tuple, CollectiveUse] = {}
    for (transfer, hidden), calls in tally.transfers.items():
        key = (transfer.kind, transfer.axes, transfer.group_size, hidden)
        old = uses.get(key, CollectiveUse(*key, 0, 0, 0, 0.0))
        uses[key] = CollectiveUse(
            *key,
            old.calls + calls,
            old.bytes + transfer.bytes * calls,
            old.sent_bytes + transfer.sent_bytes * calls,
            old.seconds + transfer.seconds * calls,
        )
    return Cost(
        tally.matmul_flops,
        tally.matmul_cycles,
        tally.other_cycles,
        tally.other_seconds,
        tuple(kernels),
        tuple(uses.values()),
        tally.host_bytes,
        tuple(tally.unknown_loops),
    )
