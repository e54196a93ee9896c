"""Bytes that an operation reads and writes, as far as its text tells.

Of an operation that waits for memory, as most without a matrix product do, they tell the time
better than `estimated_cycles`: the compiler gives a sum of bfloat16 arrays as many cycles as one of
float32 arrays, which are twice as large, and a copy up to four times what the memory needs.
"""

from sora_jax.pod.hlo import HOST, Computation, Instruction, Module, Shape

SLICES = ("slice", "dynamic-slice")
UPDATE = "dynamic-update-slice"


def moved_bytes(module: Module, computation: Computation, one: Instruction) -> int:
    """Bytes of operands and results, each once; of an array that is only sliced those of the slice,
    of one that is updated in place those of the update. The host's arrays are left out."""
    operands = computation.operand_shapes(one)
    read = [
        min(_bytes(shapes), _read(module, computation, one, place))
        for place, shapes in enumerate(operands)
    ]
    return sum(read) + _written(module, computation, one)


def _bytes(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes if shape.space != HOST)


def _read(module: Module, computation: Computation, one: Instruction, place: int) -> int:
    """Bytes that the instruction reads of its operand at a place."""
    whole = _bytes(computation.operand_shapes(one)[place])
    if one.opcode in SLICES:
        return _bytes(one.shapes) if place == 0 else whole
    if one.opcode == UPDATE:
        return 0 if place == 0 else whole
    if one.opcode != "fusion":
        return whole
    inner = module.computations[one.called("calls")[0]]
    for given in inner.instructions.values():
        if given.opcode == "parameter" and given.literal == str(place):
            return _used(module, inner, given.name)
    return whole


def _used(module: Module, computation: Computation, name: str) -> int:
    """Bytes that all users of a value in a fusion read of it."""
    total = 0
    for user in computation.instructions.values():
        for place, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.opcode == "bitcast" and not user.is_root:
                total += _used(module, computation, user.name)
            else:
                total += _read(module, computation, user, place)
    return total


def _written(module: Module, computation: Computation, one: Instruction) -> int:
    """Bytes that the instruction writes: of an update in place those of the update."""
    if one.opcode == UPDATE:
        return _bytes(computation.operand_shapes(one)[1])
    if one.opcode == "fusion":
        inner = module.computations[one.called("calls")[0]]
        return min(_bytes(one.shapes), _written(module, inner, inner.root))
    if one.opcode in ("tuple", "bitcast"):
        sources = (computation.instructions.get(name) for name in one.operands)
        return sum(_written(module, computation, source) for source in sources if source)
    return _bytes(one.shapes)
