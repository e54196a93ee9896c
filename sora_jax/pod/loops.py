"""How often each counted while loop of a program runs.

XLA does not print it for a TPU. It follows from the loop's condition, body and initial state, by
the integer arithmetic that constants decide; None where it does not.
"""

import dataclasses
import re
from typing import TypeAlias

from sora_jax.pod.hlo import Computation, Instruction, Module


@dataclasses.dataclass(frozen=True)
class Element:
    """An element of a loop's state at the start of an iteration, plus a constant."""

    index: int
    plus: int = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    direction: str  # LT, LE, GT, GE, EQ, NE
    left: "Value"
    right: "Value"


# What is known of a scalar or of a tuple of them; None is nothing.
Value: TypeAlias = "int | Element | Comparison | tuple[Value, ...] | None"


@dataclasses.dataclass(frozen=True)
class Loop:
    """A while loop: how often its body runs, and what is known of the body's one argument.

    `state` holds a value where every iteration sees the same: the limits of inner loops are there.
    """

    trips: int | None
    state: Value


def loop_of(
    module: Module,
    computation: Computation,
    instruction: Instruction,
    arguments: tuple[Value, ...] = (),
) -> Loop:
    """Loop of a while `instruction` of `computation`, called with `arguments` (what is known)."""
    body = module.computations[instruction.called("body")[0]]
    condition = module.computations[instruction.called("condition")[0]]
    initial = Scalars(module, computation, arguments).value(instruction.operands[0])
    if not isinstance(initial, tuple):
        initial = (None,) * len(instruction.shapes)
    elements = tuple(Element(index) for index in range(len(initial)))
    after = Scalars(module, body, (elements,)).value(body.root.name)
    if not isinstance(after, tuple) or len(after) != len(initial):
        return Loop(None, None)
    unchanged = [new == old for new, old in zip(after, elements, strict=True)]
    state = tuple(start if same else None for start, same in zip(initial, unchanged, strict=True))
    printed = re.search(
        r'"known_trip_count":\{"n":"?(\d+)', instruction.attributes.get("backend_config", "")
    )
    if printed:
        return Loop(int(printed[1]), state)
    # Once more, with what is known of the state: steps and limits may be there.
    known = tuple(
        value if isinstance(value, int) else element
        for value, element in zip(state, elements, strict=True)
    )
    after = Scalars(module, body, (known,)).value(body.root.name)
    test = Scalars(module, condition, (known,)).value(condition.root.name)
    return Loop(_trips(test, initial, after) if isinstance(after, tuple) else None, state)


_FLIPPED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}


def _trips(test: Value, initial: tuple[Value, ...], after: tuple[Value, ...]) -> int | None:
    """Iterations until `test` fails, for a counter that every iteration moves by a constant."""
    if not isinstance(test, Comparison) or test.direction not in _FLIPPED:
        return None
    direction, counter, limit = test.direction, test.left, test.right
    if isinstance(limit, Element):
        direction, counter, limit = _FLIPPED[direction], limit, counter
    if not isinstance(counter, Element) or not isinstance(limit, int):
        return None
    start, moved = initial[counter.index], after[counter.index]
    if not isinstance(start, int) or not isinstance(moved, Element):
        return None
    if moved.index != counter.index or moved.plus == 0:
        return None
    return _steps(direction, limit - start - counter.plus, moved.plus)


def _steps(direction: str, distance: int, step: int) -> int | None:
    """Smallest n >= 0 for which `n * step` no longer stands in `direction` to `distance`."""
    if direction in ("GT", "GE"):
        direction, distance, step = _FLIPPED[direction], -distance, -step
    if direction == "NE":
        return distance // step if distance % step == 0 and distance // step >= 0 else None
    if direction == "LE":
        distance += 1
    return max(0, -(-distance // step)) if step > 0 else None


class Scalars:
    """Integer arithmetic of one computation, as far as constants and loop state decide it."""

    def __init__(self, module: Module, computation: Computation, arguments: tuple[Value, ...]):
        self.module, self.computation, self.arguments = module, computation, arguments
        self._known: dict[str, Value] = {}

    def value(self, name: str) -> Value:
        if name not in self._known:
            instruction = self.computation.instructions.get(name)
            self._known[name] = self._evaluate(instruction) if instruction else None
        return self._known[name]

    def _evaluate(self, one: Instruction) -> Value:
        if one.opcode == "parameter":
            number = int(one.literal)
            return self.arguments[number] if number < len(self.arguments) else None
        if one.opcode == "tuple":
            return tuple(self.value(name) for name in one.operands)
        if one.opcode == "while":
            return loop_of(self.module, self.computation, one, self.arguments).state
        if one.opcode == "get-tuple-element":
            elements, index = self.value(one.operands[0]), int(one.attributes["index"])
            return elements[index] if isinstance(elements, tuple) else None
        # Of arrays nothing is known but which ones a loop passes on.
        if len(one.shapes) != 1 or one.shapes[0].elements != 1:
            return self._called(one) if one.opcode in ("fusion", "call") else None
        return self._scalar(one)

    def _called(self, one: Instruction) -> Value:
        names = one.called("calls", "to_apply")
        called = self.module.computations.get(names[0]) if names else None
        if called is None:
            return None
        arguments = tuple(self.value(name) for name in one.operands)
        return Scalars(self.module, called, arguments).value(called.root.name)

    def _scalar(self, one: Instruction) -> Value:
        if one.opcode == "constant":
            whole = re.fullmatch(r"\{?(-?\d+)\}?", one.literal)
            return int(whole[1]) if whole else {"true": 1, "false": 0}.get(one.literal)
        if one.opcode in ("fusion", "call"):
            return self._called(one)
        if one.opcode in ("copy", "bitcast", "convert", "reshape", "copy-done"):
            return self.value(one.operands[0])
        if one.opcode not in ("add", "subtract", "compare"):
            return None
        left, right = (self.value(name) for name in one.operands)
        if one.opcode == "compare":
            return Comparison(one.attributes.get("direction", ""), left, right)
        return _sum(left, right, 1 if one.opcode == "add" else -1)


def _sum(left: Value, right: Value, sign: int) -> Value:
    """left + sign * right, where at most one side is an element of the state."""
    if isinstance(left, Element) and isinstance(right, int):
        return dataclasses.replace(left, plus=left.plus + sign * right)
    if isinstance(left, int) and isinstance(right, Element) and sign == 1:
        return dataclasses.replace(right, plus=right.plus + left)
    if isinstance(left, int) and isinstance(right, int):
        return left + sign * right
    return None
