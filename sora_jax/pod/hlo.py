"""Optimized HLO text -> typed computations and instructions.

The text is what `compiled.as_text()` prints for a TPU: scheduled, one device's part of the work.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

HBM, VMEM, HOST = 0, 1, 5  # memory spaces, as layouts number them


@dataclasses.dataclass(frozen=True)
class Shape:
    """Array type of one device's share: `bf16[8,128]{1,0:T(8,128)S(1)}` lies in memory space 1."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes of the values, without the padding of tiles."""
        if self.dtype == "pred":
            return self.elements
        bits = re.search(r"\d+", self.dtype)  # f8e4m3fn has 8, a token none
        return math.ceil(self.elements * int(bits[0]) / 8) if bits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation. `shapes` are the leaves of its result, in order."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str  # what stands in the brackets of a constant or a parameter
    attributes: Mapping[str, str]
    is_root: bool

    def called(self, *keys: str) -> tuple[str, ...]:
        """Names of the computations that these attributes name, braced lists included."""
        texts = (self.attributes.get(key, "") for key in keys)
        return tuple(name for text in texts for name in re.findall(r"[\w.\-]+", text))

    def frontend(self, key: str) -> str:
        """A frontend attribute without its quotes, "" where there is none."""
        inside = self.attributes.get("frontend_attributes", "{}")[1:-1]
        return _pairs(inside).get(key, "").strip('"')


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they are scheduled."""

    name: str
    instructions: Mapping[str, Instruction]

    @property
    def root(self) -> Instruction:
        roots = [one for one in self.instructions.values() if one.is_root]
        return roots[-1] if roots else list(self.instructions.values())[-1]

    def operand_shapes(self, instruction: Instruction) -> tuple[tuple[Shape, ...], ...]:
        """Shapes of each operand, () for one that this computation does not define."""
        found = (self.instructions.get(name) for name in instruction.operands)
        return tuple(one.shapes if one else () for one in found)


@dataclasses.dataclass(frozen=True)
class Module:
    """A program split over `partitions` devices: of one slice where the mesh spans several."""

    computations: Mapping[str, Computation]
    entry: Computation
    partitions: int


# A string is one token: brackets inside a kernel's source are not brackets of the text.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}\[\],]', re.DOTALL)
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$", re.DOTALL)
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", re.DOTALL)
_SHAPE = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_COMMENT = re.compile(r"/\*index=\d+\*/")


def parse_module(text: str) -> Module:
    """Module of an HLO text; ValueError when it has no entry computation."""
    computations: dict[str, Computation] = {}
    entry = None
    for header, body in _blocks(text):
        found = (_INSTRUCTION.match(statement) for statement in body)
        instructions = [_instruction(one[2], one[3], bool(one[1])) for one in found if one]
        computation = Computation(header[2], {one.name: one for one in instructions})
        computations[computation.name] = computation
        entry = computation if header[1] else entry
    if entry is None:
        raise ValueError("the text has no ENTRY computation: is it optimized HLO?")
    partitions = re.search(r"^HloModule .*\bnum_partitions=(\d+)", text, re.MULTILINE)
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def _blocks(text: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    """Header and statements of each computation; a kernel's statement spans several lines."""
    header, statements = None, [""]
    for line in text.splitlines():
        if header is None:
            header, statements = _HEADER.match(line), [""]
        elif _is_open(statements[-1]):
            statements[-1] += "\n" + line
        elif line == "}" or line.startswith("}, execution_thread="):
            yield header, statements
            header = None
        elif _INSTRUCTION.match(line):
            statements.append(line)
        else:
            statements[-1] += "\n" + line


def _is_open(statement: str) -> bool:
    """Whether the text ends inside a string, where a line may look like anything."""
    return re.sub(r"\\.", "", statement).count('"') % 2 == 1


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    text = _COMMENT.sub("", text)
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opening = text.index("(", end)
    closing = _closing(text, opening)
    opcode, inside = text[end:opening].strip(), text[opening + 1 : closing]
    is_literal = opcode in ("constant", "parameter")
    operands = () if is_literal else tuple(part.split()[-1].lstrip("%") for part in _parts(inside))
    return Instruction(
        name,
        opcode,
        tuple(_shapes(text[:end])),
        operands,
        inside if is_literal else "",
        _pairs(text[closing + 1 :]),
        is_root,
    )


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, sizes, layout in _SHAPE.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        # A dynamic size is printed as its bound: <=8.
        dims = tuple(int(size.strip("<= ")) for size in sizes.split(",") if size)
        yield Shape(dtype, dims, int(space[1]) if space else HBM)


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += token[0] in "([{"
        depth -= token[0] in ")]}"
        if depth == 0:
            return token.start()
    raise ValueError(f"unbalanced brackets in HLO text: {text[start : start + 60]!r}")


def _parts(text: str) -> list[str]:
    """Text split at its commas outside all brackets and strings, without empty parts."""
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += token[0] in "([{"
        depth -= token[0] in ")]}"
        if token[0] == "," and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _pairs(text: str) -> dict[str, str]:
    """Keys and values of `a=1, b={...}`."""
    found = (part.partition("=") for part in _parts(text))
    return {key.strip(): value.strip() for key, _, value in found}
