"""Counts the cycles of one kernel in libtpu's text of its packed bundles.

A bundle holds what a core issues in one cycle, and the text has one for every cycle, empty ones
too. So the cycles are the bundles on the way through the program: a loop's as often as it turns,
those of a region that a forward branch may skip as often as it is entered.

    0x6a LB: > { %s10_s1 = sadd.s32 1, %s7_s1  ;;  %s7_s1 = sphi %s5_s1, %s10_s1 }
    0x6b   : > { %p4_p1 = scmp.ge.s32.totalorder %s10_s1, 258  ;;  %v3_v0 = vadd.f32 ... }
    0x6c   :  { %32 = sbr.rel (!%p4_p1) target bundleno = 106 (0x6a), region = 98 }
"""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

# Bundles after a branch that are issued whether it is taken or not.
DELAY_SLOTS = 4
# Of a loop with more turns, a region entered in nearly all is taken for one entered in all.
MOST_TURNS = 10_000

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}


@dataclasses.dataclass(frozen=True)
class KernelCycles:
    """cycles: that a core needs at least. bundles: length of the program.

    unknown_loops: loops whose turns are not a constant of the program; they count as one turn.
    """

    cycles: int
    bundles: int
    unknown_loops: int = 0


@dataclasses.dataclass(frozen=True)
class Definition:
    """A scalar or a predicate of the program: `%name = operation operands`, at a bundle."""

    at: int
    operation: str
    operands: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Branch:
    """The branch at a bundle, taken if `predicate` is `taken_if`; always without a predicate."""

    at: int
    target: int
    predicate: str
    taken_if: bool


@dataclasses.dataclass(frozen=True)
class Loop:
    """Bundles [start, stop), turns, and the register that counts them."""

    start: int
    stop: int
    index: str = ""
    first: int = 0
    step: int = 1
    turns: int = 1
    known: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """What the count needs to know of a kernel. matrix: bundles that use the matrix unit.

    stores: (bundle, register) of what is put into each place of memory for want of registers.
    """

    length: int
    definitions: Mapping[str, Definition]
    stores: Mapping[str, Sequence[tuple[int, str]]]
    branches: Sequence[Branch]
    matrix: frozenset[int]

    def stored(self, load: Definition) -> tuple[int, str] | None:
        """The store that a load reads, as they stand in the text; the way round a loop is not."""
        before = [store for store in self.stores.get(load.operands[0], ()) if store[0] < load.at]
        return max(before, default=None)


def count_cycles(text: str) -> KernelCycles:
    """The cycles of the program in `text`.

    Where a branch depends on data, a region counts if it holds matrix operations or a loop, and
    else not: it is what a step of the grid does at its ends, such as clearing a sum. So blocks that
    a kernel skips, by a causal mask say, count as if done. In a program without matrix operations
    all regions count.
    """
    program = _parse(text)
    loops = [_loop(program, branch) for branch in program.branches if branch.target <= branch.at]
    cycles = _Count(program, loops).between(0, program.length, ())
    return KernelCycles(
        cycles=round(cycles),
        bundles=program.length,
        unknown_loops=sum(not loop.known for loop in loops),
    )


def _parse(text: str) -> Program:
    definitions: dict[str, Definition] = {}
    stores: dict[str, list[tuple[int, str]]] = {}
    branches: list[Branch] = []
    matrix: set[int] = set()
    length = 0
    for at, bundle in _bundles(text):
        length = max(length, at + 1)
        if "vmat" in bundle:
            matrix.add(at)
        for statement in bundle.split(";;"):
            match = re.match(r"[\s>{]*(%[sp]\w+) = (\S+) ([^}]*)", statement)
            if match is not None:
                operands = tuple(operand.strip() for operand in match[3].split(","))
                definitions[match[1]] = Definition(at, match[2], operands)
            match = re.search(r"= sst (\S+_spill\]\]) (%s\w+)", statement)
            if match is not None:
                stores.setdefault(match[1], []).append((at, match[2]))
            match = re.search(r"sbr\.rel (?:\((!?)(%\w+)\) )?target bundleno = (\d+)", statement)
            if match is not None:
                branches.append(Branch(at, int(match[3]), match[2] or "", match[1] != "!"))
    return Program(length, definitions, stores, branches, frozenset(matrix))


def _bundles(text: str) -> Iterator[tuple[int, str]]:
    """The number and the statements of each bundle; comments, which may span lines, are dropped."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    starts = list(re.finditer(r"^\s*(0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?\s*:", text, re.MULTILINE))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        yield int(start[1], 16), text[start.end() : end]


def _loop(program: Program, branch: Branch) -> Loop:
    """The loop that a backward branch closes.

    It goes on until `next >= limit`, where next = index + step, and index is first at the start.
    """
    stop = min(branch.at + 1 + DELAY_SLOTS, program.length)
    unknown = Loop(branch.target, stop)
    test = program.definitions.get(branch.predicate)
    if test is None or not test.operation.startswith("scmp.ge.s32") or branch.taken_if:
        return unknown
    following, limit = test.operands
    addition = program.definitions.get(following)
    if addition is None or addition.operation != "sadd.s32":
        return unknown
    step, index = addition.operands
    index, start = _carried(program, index, branch.target)
    first = _constant(program.definitions.get(start))
    if first is None or not (step.isdigit() and limit.isdigit()):
        return unknown
    turns = max(1, math.ceil((int(limit) - first) / int(step)))
    return Loop(branch.target, stop, index, first, int(step), turns, known=True)


def _carried(program: Program, name: str, start: int) -> tuple[str, str]:
    """Where a value comes into the loop from `start`: the register there, and the one before it.

    A loop carries it in a register, joined by `sphi`, or in memory. Empty names if neither.
    """
    while True:
        definition = program.definitions.get(name)
        if definition is None:
            return "", ""
        if definition.operation == "sphi":
            return name, definition.operands[0]
        if definition.operation == "smov" and len(definition.operands) == 1:
            name = definition.operands[0]
            continue
        store = program.stored(definition) if definition.operation == "sld" else None
        if store is None:
            return "", ""
        if store[0] < start:
            return name, store[1]
        name = store[1]


def _constant(definition: Definition | None) -> int | None:
    if definition is None or definition.operation != "smov":
        return None
    # Of a move that a predicate guards, `(!%p1), 0`, the constant is the last operand.
    value = definition.operands[-1]
    return int(value) if value.isdigit() else None


class _Count:
    """The walk through a program."""

    def __init__(self, program: Program, loops: Sequence[Loop]) -> None:
        self.program = program
        self.loops = sorted(loops, key=lambda loop: loop.start - loop.stop)
        self.forward = {
            branch.at: branch for branch in program.branches if branch.target > branch.at
        }

    def between(self, at: int, stop: int, inside: tuple[Loop, ...]) -> float:
        """Cycles of the bundles [at, stop), which stand in the loops `inside`."""
        cycles = 0.0
        while at < stop:
            loop = next((x for x in self.loops if x.start == at and x not in inside), None)
            if loop is not None and loop.stop <= stop:
                cycles += loop.turns * self.between(at, loop.stop, (*inside, loop))
                at = loop.stop
                continue
            branch = self.forward.get(at)
            region = at + 1 + DELAY_SLOTS
            if branch is not None and region < branch.target <= stop:
                entered = self.entered(branch, region, inside)
                cycles += 1 + DELAY_SLOTS
                if entered:
                    cycles += entered * self.between(region, branch.target, inside)
                at = branch.target
                continue
            cycles += 1
            at += 1
        return cycles

    def entered(self, branch: Branch, region: int, inside: Sequence[Loop]) -> float:
        """The share of times that the region after a forward branch is not skipped."""
        if not branch.predicate:
            return 0.0
        for loop in inside:
            share = self.share(branch, loop)
            if share is not None:
                return share
        matrix = self.program.matrix
        works = any(region <= bundle < branch.target for bundle in matrix)
        loops = any(region <= loop.start < branch.target for loop in self.loops)
        return float(works or loops or not matrix)

    def share(self, branch: Branch, loop: Loop) -> float | None:
        """The same, if the predicate depends on nothing but the index of `loop`; or None."""
        if not loop.known or loop.turns > MOST_TURNS:
            return None
        entered = 0
        for turn in range(loop.turns):
            taken = self.value(branch.predicate, loop, loop.first + turn * loop.step)
            if taken is None:
                return None
            entered += bool(taken) != branch.taken_if
        return entered / loop.turns

    def value(self, name: str, loop: Loop, index: int) -> int | None:
        """What a scalar or predicate is, if it follows from constants and the loop's index."""
        if name == loop.index:
            return index
        if name.isdigit():
            # Negative constants are written as unsigned words.
            return int(name) - 2**32 if int(name) >= 2**31 else int(name)
        definition = self.program.definitions.get(name)
        if definition is None or definition.operation == "sphi":
            return None
        if definition.operation == "sld":
            store = self.program.stored(definition)
            # From before the loop it would come in the first turn only.
            inside = store is not None and store[0] >= loop.start
            return self.value(store[1], loop, index) if store and inside else None
        values = [self.value(operand, loop, index) for operand in definition.operands]
        if any(value is None for value in values):
            return None
        return _apply(definition.operation, [value for value in values if value is not None])


def _apply(operation: str, values: Sequence[int]) -> int | None:
    name, _, kind = operation.partition(".")
    if name == "scmp" and kind.partition(".")[2].startswith("s32"):
        return COMPARISONS[kind.partition(".")[0]](*values)
    if operation == "scalar_select":
        return values[1] if values[0] else values[2]
    results: dict[str, Callable[[], int]] = {
        "sadd.s32": lambda: sum(values),
        "smov": lambda: values[-1],
        "pmov": lambda: values[-1],
        "pneg": lambda: not values[0],
        "pand": lambda: all(values),
        "pnand": lambda: not all(values),
        "por": lambda: any(values),
        "pnor": lambda: not any(values),
    }
    return results[operation]() if operation in results else None
