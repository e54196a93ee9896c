"""A collective instruction -> the mesh axes that it runs over, the bytes it moves, the seconds.

Seconds are what bandwidth alone allows: no latency, and no other collective on the same links.
Within a slice the links are those of the torus axes on which the members of a group differ, and all
these axes work at once. An axis that closes into a ring carries a gathered array both ways, half of
it each; a line has one link at its end, through which all of it comes. Groups that interleave along
an axis share its links. Across slices the data centre's network carries what a slice lacks.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from sora_jax.pod.chips import Chip
from sora_jax.pod.groups import Groups, groups_of, is_dcn
from sora_jax.pod.hlo import Instruction

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
DCN_KINDS = {
    "ALL_GATHER": "all-gather",
    "ALL_REDUCE": "all-reduce",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}
# An assumption: the two cores of a tpu7x chip talk that many times faster than over an ICI link.
CORE_LINKS = 6


def kind_of(instruction: Instruction) -> str | None:
    """Which collective the instruction is or starts, None for any other."""
    if is_dcn(instruction):
        return DCN_KINDS[instruction.frontend("_xla_megascale_transfer_type")]
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def axes_of(groups: Groups, mesh: jax.sharding.Mesh) -> tuple[str, ...]:
    """Names of the mesh axes along which members of a group differ, in the mesh's order.

    The groups are of positions in `mesh.devices.flat`.
    """
    differ = np.zeros(mesh.devices.ndim, bool)
    for group in groups:
        places = np.stack(np.unravel_index(group, mesh.devices.shape))
        differ |= places.max(1) != places.min(1)
    return tuple(name for name, differs in zip(mesh.axis_names, differ, strict=True) if differs)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """One run of a collective. `bytes` is the whole array: gathered, or before it is reduced."""

    kind: str
    axes: tuple[str, ...]
    group_size: int
    bytes: int
    sent_bytes: int  # by each device
    seconds: float


@dataclasses.dataclass(frozen=True)
class _Group:
    """Where the members of a group stand in one slice."""

    members: int
    chips: int
    counts: tuple[int, ...]  # distinct places along each torus axis
    rates: tuple[float, ...]  # bytes/s along each axis into the chip that gets least


class Fabric:
    """The links among the devices of a mesh, for a program split over `partitions` of them.

    Of a mesh over several slices, a program is split over the devices of one, and its groups say
    which of these, in the order in which they stand in the mesh.
    """

    def __init__(self, mesh: jax.sharding.Mesh, chip: Chip, partitions: int):
        devices = list(mesh.devices.flat)
        self.mesh, self.chip, self.partitions = mesh, chip, partitions
        self.positions = {device.id: position for position, device in enumerate(devices)}
        self.slices = [getattr(device, "slice_index", None) or 0 for device in devices]
        places = np.array([device.coords for device in devices])
        places -= places.min(0)
        self.coordinates = [tuple(int(at) for at in place) for place in places]
        self.sizes = tuple(int(last) + 1 for last in places.max(0))
        self._seconds = functools.cache(self._seconds_for_each_byte)

    def transfer(
        self, instruction: Instruction, operand_bytes: int, kind: str | None = None
    ) -> Transfer:
        """What one run of the instruction moves; `kind` where its opcode tells a part only."""
        kind = kind or kind_of(instruction)
        if kind is None:
            raise ValueError(f"{instruction.opcode} {instruction.name} is not a collective")
        groups = self._placed(instruction)
        if kind == "collective-permute":
            size = max((len(chain) for chain in _chains(groups)), default=1)
            share = 1.0
        else:
            size = max(len(group) for group in groups)
            share = _rounds(kind) * (size - 1) / size
        whole = operand_bytes * (size if kind == "all-gather" else 1)
        sent = round(whole * share) if size > 1 else 0
        seconds = whole * self._seconds(kind, groups)
        return Transfer(kind, axes_of(groups, self.mesh), size, whole, sent, seconds)

    def _placed(self, instruction: Instruction) -> Groups:
        """The instruction's groups as positions in the mesh."""
        groups = groups_of(instruction, self.partitions)
        if is_dcn(instruction):
            return tuple(tuple(self.positions[one] for one in group) for group in groups)
        if self.partitions == len(self.slices):
            return groups
        members = collections.defaultdict(list)
        for position, at in enumerate(self.slices):
            members[at].append(position)
        if any(len(one) != self.partitions for one in members.values()):
            raise ValueError(
                f"a program for {self.partitions} devices was not compiled for a mesh of "
                f"{len(self.slices)} devices in {len(members)} slices"
            )
        return tuple(tuple(one[i] for i in group) for one in members.values() for group in groups)

    def _seconds_for_each_byte(self, kind: str, groups: Groups) -> float:
        """Of the whole array, for the slowest group."""
        if kind == "collective-permute":
            return self._permute(groups)
        return max(self._exchange(kind, group) for group in groups)

    def _exchange(self, kind: str, group: Sequence[int]) -> float:
        members: dict[int, list[int]] = collections.defaultdict(list)
        for position in group:
            members[self.slices[position]].append(position)
        seconds = max(self._within_slice(kind, self._located(one)) for one in members.values())
        # Each device brings its slice a share of what the other slices have.
        across = (len(members) - 1) / len(group)
        if kind.endswith("all-to-all"):
            across = 1 - 1 / len(members)
        return seconds + _rounds(kind) * across / self.chip.dcn_bandwidth

    def _within_slice(self, kind: str, group: _Group) -> float:
        if group.members == 1:
            return 0.0
        rounds = _rounds(kind)
        if group.chips == 1:
            share = 1 - 1 / group.members
            return rounds * share / (CORE_LINKS * self.chip.link_bandwidth)
        if kind.endswith("all-to-all"):
            # Half of the chips of an axis send to the other half, over the links in the middle.
            halves = [(count // 2) * (count - count // 2) / count for count in group.counts]
            times = [half / rate for half, rate in zip(halves, group.rates, strict=True) if half]
            return max(times) * group.members / group.chips
        return rounds * (1 - 1 / group.chips) / sum(group.rates)

    def _located(self, members: Sequence[int]) -> _Group:
        chips = {self.coordinates[position] for position in members}
        places = [sorted({chip[axis] for chip in chips}) for axis in range(len(self.sizes))]
        counts = tuple(len(axis) for axis in places)
        # Where they do not fill a box, they cannot fill the links of all its axes.
        filled = len(chips) / math.prod(counts)
        # The other cores of these chips run the same collective over the same links.
        shared = len(members) / len(chips) / self.chip.devices_per_chip
        rates = []
        for axis, at in enumerate(places):
            links, span = self._links(axis, at)
            rates.append(links * len(at) / span * self.chip.link_bandwidth * filled * shared)
        return _Group(len(members), len(chips), counts, tuple(rates))

    def _links(self, axis: int, places: list[int]) -> tuple[int, int]:
        """Links along an axis into the chip that has fewest, and the chips that they run past."""
        count, size = len(places), self.sizes[axis]
        if count == 1:
            return 0, 1
        strides = {after - before for before, after in itertools.pairwise(places)}
        if self.is_ring(axis) and size % count == 0 and strides == {size // count}:
            return 2, size
        return 1, places[-1] - places[0] + 1

    def is_ring(self, axis: int) -> bool:
        """Whether the ends of a torus axis are joined; of three axes, those of all or of none."""
        deciding = self.sizes if self.chip.torus_axes == 3 else (self.sizes[axis],)
        return min(deciding) >= self.chip.wraps_at

    def _permute(self, pairs: Groups) -> float:
        """Seconds a byte over the busiest link; a message goes along one axis after the other."""
        loads: collections.Counter[tuple[int, ...]] = collections.Counter()
        slowest = 0.0
        for source, target in pairs:
            if self.slices[source] != self.slices[target]:
                slowest = max(slowest, 1 / self.chip.dcn_bandwidth)
            elif self.coordinates[source] != self.coordinates[target]:
                loads.update(self._route(source, target))
            elif source != target:
                slowest = max(slowest, 1 / (CORE_LINKS * self.chip.link_bandwidth))
        return max(slowest, max(loads.values(), default=0) / self.chip.link_bandwidth)

    def _route(self, source: int, target: int) -> Iterator[tuple[int, ...]]:
        """Links on the way: slice, the coordinates where a link starts, its axis and direction."""
        at = list(self.coordinates[source])
        for axis, goal in enumerate(self.coordinates[target]):
            size, distance = self.sizes[axis], goal - at[axis]
            if self.is_ring(axis) and abs(distance) > size / 2:
                distance -= int(math.copysign(size, distance))
            step = int(math.copysign(1, distance))
            for _ in range(abs(distance)):
                yield (self.slices[source], *at, axis, step)
                at[axis] = (at[axis] + step) % size


def _rounds(kind: str) -> int:
    """An all-reduce moves an array twice: it scatters the sums, then gathers them."""
    return 2 if kind == "all-reduce" else 1


def _chains(pairs: Groups) -> list[set[int]]:
    """Devices joined by pairs, directly or through others."""
    chains: dict[int, set[int]] = {}
    for source, target in pairs:
        joined = chains.get(source, {source}) | chains.get(target, {target})
        chains.update(dict.fromkeys(joined, joined))
    return list(chains.values())
