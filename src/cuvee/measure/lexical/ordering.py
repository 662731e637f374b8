"""An order of rows that depends on their texts and a seed, never on the order they came in."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_seed


def canonical_order(texts: Sequence[str], *, seed: int, label: str) -> NDArray[np.int64]:
    """Rows in the order of a seeded hash of their text, shape (n,).

    Copies of one text are told apart by their number, so that each falls to a place of its own: the first m rows
    of the order are a simple random sample of m rows. Which copy stands at which place is arbitrary, and no
    matter where only texts count.

    Args:
        texts: n texts.
        seed, label: name the order; other names, another order.
    """
    key = derive_seed(seed, label).to_bytes(8, "little")
    copies: dict[str, int] = {}
    hashes: list[tuple[bytes, int]] = []
    for row, text in enumerate(texts):
        copy = copies.get(text, 0)
        copies[text] = copy + 1
        data = copy.to_bytes(4, "little") + text.encode("utf-8", "surrogatepass")
        hashes.append((blake2b(data, digest_size=16, key=key).digest(), row))
    return np.array([row for _, row in sorted(hashes)], dtype=np.int64)
