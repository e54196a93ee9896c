"""Groups of devices, in every form in which compilations for a TPU print them."""

import pytest

from sora_jax.pod.groups import Groups, groups_of, is_dcn
from sora_jax.pod.hlo import Instruction, parse_module


def instruction(attributes: str, opcode: str = "all-gather") -> Instruction:
    text = "ENTRY %main (p: f32[8]) -> f32[8] {\n  %p = f32[8]{0} parameter(0)\n"
    text += (
        f"  ROOT %one = f32[8]{{0}} {opcode}(%p), channel_id=1, {attributes}, dimensions={{0}}\n}}"
    )
    return parse_module(text + "\n").entry.root


def groups(attributes: str, devices: int = 8) -> Groups:
    return groups_of(instruction(attributes), devices)


def test_listed_groups() -> None:
    assert groups("replica_groups={{0,2},{1,3}}") == ((0, 2), (1, 3))


def test_no_groups_are_one_of_all_devices() -> None:
    assert groups("replica_groups={}", devices=3) == ((0, 1, 2),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("[2,4]<=[2,2,2]T(1,0,2)", ((0, 1, 4, 5), (2, 3, 6, 7))),
    ],
)
def test_counted_groups(text: str, expected: Groups) -> None:
    assert groups(f"replica_groups={text}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mesh['a'=2,'b'=4] {'b'}", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("mesh['a'=2,'b'=4] {'a'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=4] {'a','b'}", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("mesh['a'=2,'b'=4] {'b','a'}", ((0, 4, 1, 5, 2, 6, 3, 7),)),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_0','axis_1'}", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        # The order of the devices, written out in three ways.
        (
            "mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}",
            ((0, 1, 2, 3), (4, 5, 6, 7)),
        ),
        (
            "mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_2'}",
            ((0, 4), (1, 5), (2, 6), (3, 7)),
        ),
        ("mesh[a=2,b=4], device_ids=([2,4]<=[4,2]T(1,0)) {b}", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh[a=2,b=2], device_ids=(3,1,0,2) {b}", ((3, 1), (0, 2))),
        # Of b, split in two and two, the outer part, then the inner one.
        ("mesh['a'=2,'b'=4] {'b':(1)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("mesh['a'=2,'b'=4] {'a','b':(2)2}", ((0, 1, 4, 5), (2, 3, 6, 7))),
    ],
)
def test_groups_along_the_axes_of_the_compilers_mesh(text: str, expected: Groups) -> None:
    assert groups(f"replica_groups={text}") == expected


def test_an_unknown_form_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(ValueError, match="unknown form"):
        groups("replica_groups=mesh of all")
    with pytest.raises(ValueError, match="unknown form"):
        groups("replica_groups=everything")


def test_pairs_of_a_permute() -> None:
    permute = instruction("source_target_pairs={{0,1},{1,0},{2,2}}", "collective-permute-start")
    assert groups_of(permute, 4) == ((0, 1), (1, 0), (2, 2))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ('"{1,2}x{0:2}"', ((100000, 200000), (100001, 200001), (100002, 200002))),
        ('"{1:2,4}x{0,2}"', ((100000, 200000, 400000), (100002, 200002, 400002))),
        ("{{100000,300000},{200000,400000}}", ((100000, 300000), (200000, 400000))),
        ("{{100000->300000},{300000->100000}}", ((100000, 300000), (300000, 100000))),
    ],
)
def test_groups_across_slices_are_of_device_ids(target: str, expected: Groups) -> None:
    send = instruction(f"frontend_attributes={{_xla_megascale_target={target}}}", "send")
    assert is_dcn(send)
    assert groups_of(send, 4) == expected


def test_a_send_to_the_host_is_no_collective() -> None:
    assert not is_dcn(instruction("is_host_transfer=true", "send"))
