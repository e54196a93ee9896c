"""Maximal update parametrisation: how far the updates of parameters go in a network of any width.

In the standard parametrisation a matrix with n inputs changes its output by about n x rate in a
step of Adam, so the best rate falls as a network is made wider. In this one (muP, arXiv:2203.03466,
table 3; arXiv:2505.15270 for diffusion transformers) every part changes by as much at any width,
and a rate that was found on a narrow network holds for a wide one. It asks for

    of                               initial deviation       Adam's rate
    what comes from outside          1/sqrt(inputs)          1             inputs do not grow
    hidden matrices, modulation      1/sqrt(inputs)          1/inputs
    the readout                      at most 1/inputs        1/inputs
    biases, scales of norms          any                     1

over a base width, at which it is the standard one. The networks here have these deviations anyhow:
readout and modulation start at zero. With heads of a fixed width and normalised queries and keys,
what is left are the rates: nothing in the forward pass, the parameters or a checkpoint depends on
the parametrisation.

What grows is read off the shapes of the same network at the base width. So the keys of a caption,
whose embeddings are as wide as they were, count as coming from outside.
"""

import math
from typing import Any

import jax
from flax import nnx


def tell_base_shapes(model: Any, base: Any) -> None:
    """Notes at every parameter of `model` its shape in `base`, the same network (which may be
    abstract) at the base width."""
    is_leaf = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
    pairs = zip(*(jax.tree.leaves(each, is_leaf=is_leaf) for each in (model, base)), strict=True)
    for variable, at_base in pairs:
        variable.set_metadata(base_shape=at_base.get_value().shape)


def update_scale(variable: nnx.Variable, *, orthogonalised: bool) -> float:
    """What to multiply the updates of a parameter by; 1 without a noted shape.

    Elements of an update are taken to be as large at any width, as Adam makes them. One that is
    also `orthogonalised` (Muon with a fixed root mean square, arXiv:2502.16982) has a largest
    singular value of sqrt(max(inputs, outputs)), which is to be sqrt(outputs / inputs)
    (arXiv:2310.17813).
    """
    metadata = variable.get_metadata()
    base: tuple[int, ...] | None = metadata.get("base_shape")
    if base is None:
        return 1.0
    wanted = _orthogonalised if orthogonalised else _independent
    rank = len(metadata["axes"])  # what stands before is a stack's
    return wanted(variable.get_value().shape[-rank:]) / wanted(base[-rank:])


def _independent(shape: tuple[int, ...]) -> float:
    return 1 / math.prod(shape[:-1])


def _orthogonalised(shape: tuple[int, ...]) -> float:
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    return math.sqrt(outputs / inputs / max(inputs, outputs))
