"""Which axes a collective spans, what it moves and how long its links take, on small tori."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.collectives import CORE_LINKS, Fabric, Transfer, axes_of, kind_of
from sora_jax.pod.hlo import Instruction, parse_module

V5P, V5E, TPU7X = (GENERATIONS[name] for name in ("v5p", "v5e", "tpu7x"))
LINK, MEGABYTE = V5P.link_bandwidth, 2**20


# Chips along each axis of a slice, for the meshes of the tests by the names of their axes.
TORUS = {
    "xyz": (4, 4, 4),  # a cube: every axis a ring
    "kyz": (8, 4, 4),
    "uv": (2, 2, 1),  # smaller than a cube: no rings
    "hmn": (2, 4, 4),  # still smaller than a cube
    "rab": (2, 2, 1),
    "ij": (2, 2, 1),
    "pq": (4, 4),
    "w": (16, 1),
}


def mesh(
    shape: tuple[int, ...], axes: str, *, slices: int = 1, cores: int = 1, order: Any = None
) -> Any:
    """What is looked at of a mesh, with devices as libtpu numbers them: by slice, chip and core."""
    places = list(itertools.product(*map(range, (*TORUS[axes], cores))))
    devices = [
        SimpleNamespace(id=(at + 1) * 100_000 + number, coords=list(place[:-1]), slice_index=at)
        for at in range(slices)
        for number, place in enumerate(places)
    ]
    array = np.array(devices, object)[list(order or range(len(devices)))]
    return SimpleNamespace(devices=array.reshape(shape), axis_names=tuple(axes))


def collective(opcode: str, attributes: str) -> Instruction:
    text = "ENTRY %main (p: f32[8]) -> f32[8] {\n  %p = f32[8]{0} parameter(0)\n"
    text += f"  ROOT %one = f32[8]{{0}} {opcode}(%p), channel_id=1, {attributes}\n}}\n"
    return parse_module(text).entry.root


def transfer(fabric: Fabric, opcode: str, groups: str, size: int = MEGABYTE) -> Transfer:
    key = "source_target_pairs" if "permute" in opcode else "replica_groups"
    return fabric.transfer(collective(opcode, f"{key}={groups}"), size)


def cube() -> Fabric:
    return Fabric(mesh((4, 4, 4), "xyz"), V5P, 64)


def square() -> Fabric:
    return Fabric(mesh((2, 2), "uv"), V5P, 4)


X, Y, Z = (f"mesh['x'=4,'y'=4,'z'=4] {{'{axis}'}}" for axis in "xyz")
XY, XYZ = "mesh['x'=4,'y'=4,'z'=4] {'x','y'}", "mesh['x'=4,'y'=4,'z'=4] {'x','y','z'}"


def test_kinds_are_known_by_opcode_started_or_not() -> None:
    assert kind_of(collective("all-gather", "dimensions={0}")) == "all-gather"
    assert kind_of(collective("collective-permute-start", "x=1")) == "collective-permute"
    assert kind_of(collective("all-gather-done", "x=1")) is None
    assert kind_of(collective("fusion", "calls=%all-reduce")) is None


def test_axes_are_those_along_which_members_of_a_group_differ() -> None:
    names = mesh((4, 4, 4), "xyz")
    assert axes_of(((0, 1, 2, 3),), names) == ("z",)
    assert axes_of(((0, 16), (1, 17)), names) == ("x",)
    assert axes_of(((0, 1), (0, 16)), names) == ("x", "z")
    assert axes_of(((5,),), names) == ()


@pytest.mark.parametrize(("groups", "axes"), [(X, "x"), (Y, "y"), (Z, "z"), (XY, "xy")])
def test_a_transfer_names_its_axes(groups: str, axes: str) -> None:
    assert transfer(cube(), "all-gather", groups).axes == tuple(axes)


@pytest.mark.parametrize(
    ("opcode", "whole", "sent"),
    [
        ("all-gather", 4, 3),  # of four, of which each had a megabyte
        ("reduce-scatter", 1, 3 / 4),
        ("all-reduce", 1, 2 * 3 / 4),
        ("all-to-all", 1, 3 / 4),
    ],
)
def test_bytes_are_of_the_whole_array_and_of_what_is_sent(
    opcode: str, whole: float, sent: float
) -> None:
    moved = transfer(cube(), opcode, Y)
    assert moved.group_size == 4
    assert moved.bytes == whole * MEGABYTE
    assert moved.sent_bytes == sent * MEGABYTE


def test_a_ring_brings_a_gathered_array_from_both_sides() -> None:
    gathered = transfer(cube(), "all-gather", Y)
    assert gathered.seconds == pytest.approx(gathered.sent_bytes / (2 * LINK))
    reduced = transfer(cube(), "all-reduce", Y)
    assert reduced.seconds == pytest.approx(reduced.sent_bytes / (2 * LINK))


def test_all_axes_of_a_group_work_at_once() -> None:
    gathered = transfer(cube(), "all-gather", XYZ)
    assert gathered.bytes == 64 * MEGABYTE
    assert gathered.seconds == pytest.approx(gathered.sent_bytes / (6 * LINK))


def test_the_end_of_a_line_has_one_link() -> None:
    gathered = transfer(square(), "all-gather", "{{0,1},{2,3}}")
    assert gathered.axes == ("v",)
    assert gathered.seconds == pytest.approx(MEGABYTE / LINK)
    both = transfer(square(), "all-gather", "{{0,1,2,3}}")
    assert both.seconds == pytest.approx(3 * MEGABYTE / (2 * LINK))


@pytest.mark.parametrize(("generation", "links"), [(V5P, 2), (V5E, 1)])
def test_four_chips_in_a_row_are_a_ring_by_generation(generation: Any, links: int) -> None:
    axes, shape = ("xyz", (4, 4, 4)) if generation is V5P else ("pq", (4, 4))
    fabric = Fabric(mesh(shape, axes), generation, math.prod(shape))
    groups = f"mesh[{','.join(f'{name}=4' for name in axes)}] {{{axes[0]}}}"
    seconds = transfer(fabric, "all-gather", groups).seconds
    assert seconds == pytest.approx(3 * MEGABYTE / (links * generation.link_bandwidth))


def test_sixteen_chips_in_a_row_are_a_ring_on_v5e() -> None:
    fabric = Fabric(mesh((16,), "w"), V5E, 16)
    seconds = transfer(fabric, "all-gather", "{}").seconds
    assert seconds == pytest.approx(15 * MEGABYTE / (2 * V5E.link_bandwidth))


def test_of_three_axes_all_are_rings_or_none_is() -> None:
    fabric = Fabric(mesh((2, 4, 4), "hmn"), V5P, 32)
    seconds = transfer(fabric, "all-gather", "mesh['h'=2,'m'=4,'n'=4] {'n'}").seconds
    assert seconds == pytest.approx(3 * MEGABYTE / LINK)


def test_a_group_that_is_no_box_cannot_fill_the_links_of_its_axes() -> None:
    diagonal = transfer(square(), "all-gather", "{{0,3},{1,2}}")
    assert diagonal.axes == ("u", "v")
    assert diagonal.seconds == pytest.approx(MEGABYTE / LINK)


def test_neighbours_of_a_ring_are_a_line() -> None:
    seconds = transfer(cube(), "all-gather", "mesh['x'=4,'y'=4,'z'=4] {'y':(2)2}").seconds
    assert seconds == pytest.approx(MEGABYTE / LINK)


def test_groups_that_interleave_share_the_links_of_their_axis() -> None:
    seconds = transfer(cube(), "all-gather", "mesh['x'=4,'y'=4,'z'=4] {'y':(1)2}").seconds
    assert seconds == pytest.approx(MEGABYTE / (2 * LINK / 2))


def test_an_all_to_all_is_bound_by_the_middle_of_its_longest_axis() -> None:
    # Half of the array of each of two chips passes the two links that cut the ring in two.
    assert transfer(cube(), "all-to-all", Y).seconds == pytest.approx(MEGABYTE / (2 * LINK))
    assert transfer(cube(), "all-to-all", XYZ).seconds == pytest.approx(MEGABYTE / (2 * LINK))
    line = transfer(square(), "all-to-all", "{{0,1},{2,3}}")
    assert line.seconds == pytest.approx(MEGABYTE / 2 / LINK)


def shift(by: int, around: int = 4) -> str:
    pairs = [(16 * i + j, 16 * ((i + by) % around) + j) for i in range(around) for j in range(16)]
    return "{" + ",".join(f"{{{source},{target}}}" for source, target in pairs) + "}"


@pytest.mark.parametrize(("by", "hops"), [(1, 1), (3, 1), (2, 2)])
def test_a_permute_is_bound_by_its_busiest_link(by: int, hops: int) -> None:
    moved = transfer(cube(), "collective-permute-start", shift(by))
    assert moved.axes == ("x",)
    assert moved.group_size == (2 if by == 2 else 4)
    assert moved.bytes == moved.sent_bytes == MEGABYTE
    assert moved.seconds == pytest.approx(hops * MEGABYTE / LINK)


def test_a_message_takes_the_short_way_around_a_ring() -> None:
    # From 0 to 3 backwards, beside the one from 1 to 2; forwards both would need the same link.
    apart = transfer(cube(), "collective-permute-start", "{{0,48},{16,32}}")
    assert apart.seconds == pytest.approx(MEGABYTE / LINK)
    # From 7 to 1 by way of 0, where another one sets out for 1.
    fabric = Fabric(mesh((8, 4, 4), "kyz"), V5P, 128)
    shared = transfer(fabric, "collective-permute-start", "{{112,16},{0,16}}")
    assert shared.seconds == pytest.approx(2 * MEGABYTE / LINK)


def test_a_permute_around_a_line_goes_back_along_it() -> None:
    fabric = Fabric(mesh((4, 4), "pq"), V5E, 16)
    back = transfer(fabric, "collective-permute-start", "{{0,4},{4,8},{8,12},{12,0}}")
    assert back.group_size == 4
    assert back.seconds == pytest.approx(MEGABYTE / V5E.link_bandwidth)


def test_a_permute_that_moves_nothing_takes_no_time() -> None:
    still = transfer(square(), "collective-permute-start", "{{0,0},{1,1}}")
    assert (still.axes, still.seconds) == ((), 0.0)


def test_cores_of_a_chip_share_its_links_and_have_faster_ones_between_them() -> None:
    fabric = Fabric(mesh((4, 2), "ij", cores=2), TPU7X, 8)
    pair = transfer(fabric, "all-gather", "{{0,1},{2,3},{4,5},{6,7}}")
    assert pair.seconds == pytest.approx(MEGABYTE / (CORE_LINKS * TPU7X.link_bandwidth))
    # Chips 0 and 1, as two groups of one core of each, or as one group of both cores.
    apart = transfer(fabric, "all-gather", "{{0,2},{1,3},{4,6},{5,7}}", 2 * MEGABYTE)
    joined = transfer(fabric, "all-gather", "{{0,1,2,3},{4,5,6,7}}")
    assert apart.bytes == joined.bytes
    assert apart.seconds == pytest.approx(2 * joined.seconds)
    assert joined.seconds == pytest.approx(2 * MEGABYTE / TPU7X.link_bandwidth)


def send(target: str, kind: str, size: int = MEGABYTE) -> tuple[Instruction, int]:
    attributes = f"_xla_megascale_target={target},_xla_megascale_transfer_type={kind}"
    return collective("send", f"frontend_attributes={{{attributes}}}"), size


@pytest.mark.parametrize(
    ("kind", "name", "whole", "sent"),
    [
        ("ALL_REDUCE", "all-reduce", 1, 1),
        ("ALL_GATHER", "all-gather", 2, 1),
        ("REDUCE_SCATTER", "reduce-scatter", 1, 1 / 2),
        ("ALL_TO_ALL", "all-to-all", 1, 1 / 2),
    ],
)
def test_what_goes_to_other_slices_takes_the_network(
    kind: str, name: str, whole: float, sent: float
) -> None:
    fabric = Fabric(mesh((2, 2, 2), "rab", slices=2), V5P, 4)
    moved = fabric.transfer(*send('"{1,2}x{0:3}"', f'"{kind}"'))
    assert (moved.kind, moved.axes, moved.group_size) == (name, ("r",), 2)
    assert moved.bytes == whole * MEGABYTE
    assert moved.sent_bytes == sent * MEGABYTE
    assert moved.seconds == pytest.approx(moved.sent_bytes / V5P.dcn_bandwidth)


def test_a_message_to_another_slice_takes_the_network() -> None:
    fabric = Fabric(mesh((2, 2, 2), "rab", slices=2), V5P, 4)
    pairs = "{{100000->200000},{200000->100000}}"
    moved = fabric.transfer(*send(pairs, '"ONE_TO_ONE"'))
    assert (moved.kind, moved.axes) == ("collective-permute", ("r",))
    assert moved.seconds == pytest.approx(MEGABYTE / V5P.dcn_bandwidth)


def test_a_group_within_and_across_slices_takes_both() -> None:
    fabric = Fabric(mesh((2, 2, 2), "rab", slices=2), V5P, 8)
    moved = transfer(fabric, "all-gather", "{}")
    assert moved.axes == ("r", "a", "b")
    # Each chip brings its slice one of the four megabytes of the other, and the slice shares all.
    network = MEGABYTE / V5P.dcn_bandwidth
    assert moved.seconds == pytest.approx(network + 8 * MEGABYTE * 3 / 4 / (2 * LINK))
    # Half of what each has goes to the other slice.
    exchanged = transfer(fabric, "all-to-all", "{}")
    network = MEGABYTE / 2 / V5P.dcn_bandwidth
    assert exchanged.seconds == pytest.approx(network + MEGABYTE / 2 / LINK)


def test_groups_of_a_program_over_slices_are_of_the_devices_of_one() -> None:
    # Of each slice the devices stand in the mesh in another order than by their ids.
    order = (3, 1, 0, 2, 6, 4, 7, 5)
    fabric = Fabric(mesh((2, 2, 2), "rab", slices=2, order=order), V5P, 4)
    assert transfer(fabric, "all-gather", "{{0,2},{1,3}}").axes == ("a",)
    assert transfer(fabric, "all-gather", "{{0,1},{2,3}}").axes == ("b",)
    pairs = "{{100003,200002},{100001,200000},{100000,200003},{100002,200001}}"
    assert fabric.transfer(*send(pairs, '"ALL_GATHER"')).axes == ("r",)


def test_a_program_for_another_mesh_is_an_error() -> None:
    fabric = Fabric(mesh((2, 2, 2), "rab", slices=2), V5P, 2)
    with pytest.raises(ValueError, match="not compiled for a mesh of 8 devices"):
        transfer(fabric, "all-gather", "{{0,1}}")
