"""How many tokens the TPU kernels of attention hold at once, by generation and by length."""

import dataclasses
from typing import Literal

LANES = 128  # width of a TPU register: heads are multiples of it, and so are blocks of tokens


Hold = Literal["values", "weights"]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Tokens that a TPU kernel holds at once: of queries, of keys in memory, of keys in a multiply;
    the largest multiples of 128 up to these that divide the tokens are taken."""

    query: int = 1024
    key: int = 2048
    query_compute: int = 1024
    key_compute: int = 512
    hold: Hold = "values"
    backward_query: int = 1024
    backward_key: int = 1024
    backward_key_compute: int = 256


def block_of(length: int, most: int) -> int:
    """The largest multiple of LANES up to `most` that divides `length`, itself a multiple."""
    return next(size for size in range(min(most, length), 0, -LANES) if length % size == 0)


def vmem_limit() -> int:
    """Bytes of VMEM that a kernel may take."""
    return 60 * 2**20
