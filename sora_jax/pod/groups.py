"""The groups of devices of a collective, in every form in which HLO text prints them."""

import itertools
import math
import re

import numpy as np

from sora_jax.pod.hlo import Instruction

Groups = tuple[tuple[int, ...], ...]

# What goes to other slices is printed as a send to the runtime of the data centre's network.
DCN_TARGET = "_xla_megascale_target"
# The n-th slice, counted from 1, has the device ids from n times this on.
SLICE_IDS = 100_000


def is_dcn(instruction: Instruction) -> bool:
    return instruction.opcode == "send" and bool(instruction.frontend(DCN_TARGET))


def groups_of(instruction: Instruction, devices: int) -> Groups:
    """Groups that exchange data; for a collective-permute, pairs of a source and a target.

    They are numbers as printed: device ids if `is_dcn`, otherwise positions among the program's
    `devices`, which form one group if none is printed.
    """
    if is_dcn(instruction):
        return _dcn_groups(instruction.frontend(DCN_TARGET))
    pairs = instruction.attributes.get("source_target_pairs")
    if pairs is not None:
        return _listed(pairs)
    text = instruction.attributes.get("replica_groups", "")
    if text.startswith(("mesh", "@mesh")):
        return _mesh_groups(text + instruction.attributes.get("device_ids", ""))
    if "<=" in text:
        return _as_groups(_iota(text))
    if text in ("", "{}"):
        return (tuple(range(devices)),)
    return _listed(text)


def _listed(text: str) -> Groups:
    """Groups of `{{0,1},{2,3}}` or `{{0->1},{1->0}}`."""
    if re.fullmatch(r"\{[\d,\-> {}]*\}", text) is None:
        raise ValueError(f"unknown form of a list of devices in HLO text: {text!r}")
    return tuple(tuple(_integers(group)) for group in re.findall(r"\{([\d,\-> ]+)\}", text))


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _as_groups(ids: np.ndarray) -> Groups:
    return tuple(tuple(int(one) for one in row) for row in ids)


def _iota(text: str) -> np.ndarray:
    """Array of `[2,4]<=[4,2]T(1,0)`: counted up in the second shape, transposed, reshaped."""
    found = re.search(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if found is None:
        raise ValueError(f"unknown form of a list of devices in HLO text: {text!r}")
    counted = np.arange(math.prod(_integers(found[2]))).reshape(_integers(found[2]))
    if found[3]:
        counted = counted.transpose(_integers(found[3]))
    return counted.reshape(_integers(found[1]))


def _mesh_groups(text: str) -> Groups:
    """Groups of `mesh['a'=2,'b'=8]([8,2]T(1,0)) {'a','b':(2)4}`: along a and a part of b.

    The mesh is the compiler's, with axes of its own. What stands before the braces, if anything
    does, is the order of its devices. The part of b is the middle one of b split into (2, 4, rest).
    """
    found = re.match(r"@?mesh[\[<]([^\]>]*)[\]>]\s*(?:\((.*)\))?\s*\{([^{}]*)\}\s*$", text)
    if found is None:
        raise ValueError(f"unknown form of replica groups in HLO text: {text!r}")
    sizes = {name: int(size) for name, size in re.findall(r"([\w.\-]+)'?=(\d+)", found[1])}
    cuts = {name: {1, size} for name, size in sizes.items()}
    chosen = []
    for name, start, size in re.findall(r"([\w.\-]+)'?(?::\((\d+)\)(\d+))?", found[3]):
        first = int(start or 1)
        cuts[name] |= {first, first * int(size) if size else sizes[name]}
        chosen.append((name, first))
    factors = {
        (name, first): last // first
        for name, places in cuts.items()
        for first, last in itertools.pairwise(sorted(places))
    }
    names = list(factors)
    inside = [names.index(part) for part in chosen if part in factors]
    outside = [place for place in range(len(names)) if place not in inside]
    ids = _mesh_devices(found[2], math.prod(sizes.values())).reshape(tuple(factors.values()))
    size = math.prod(ids.shape[place] for place in inside)
    return _as_groups(ids.transpose(outside + inside).reshape(-1, size))


def _mesh_devices(text: str | None, count: int) -> np.ndarray:
    """Devices in the order of a mesh: counted up, `[2,8]T(1,0)` of that, or a list of them."""
    text = (text or "").removeprefix("devices=")
    if "<=" in text:
        return _iota(text)
    if "T(" in text:
        return _iota(f"[{count}]<={text}")
    listed = _integers(re.sub(r"^\[[\d,]*\]", "", text))
    return np.array(listed) if listed else np.arange(count)


def _dcn_groups(text: str) -> Groups:
    """Device ids, listed, or of `{1,2}x{0:3}`: the devices of one number in these slices."""
    product = re.fullmatch(r"\{([\d,:]+)\}x\{([\d,:]+)\}", text)
    if product is None:
        return _listed(text)
    slices, devices = (_ranges(part) for part in product.groups())
    return tuple(tuple(one * SLICE_IDS + device for one in slices) for device in devices)


def _ranges(text: str) -> list[int]:
    """Numbers of `0:3,8`, ends included."""
    ends = [_integers(part) for part in text.split(",")]
    return [number for part in ends for number in range(part[0], part[-1] + 1)]
