"""Hashes of what changes the data, and random streams derived from names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, str | bytes):
        return value if isinstance(value, str) else value.hex()
    if isinstance(value, Sequence | set | frozenset):
        items = [_plain(v) for v in value]
        return items if isinstance(value, Sequence) else sorted(items, key=repr)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    msg = f"value of type {type(value).__name__} has no fingerprint: {value!r}"
    raise TypeError(msg)


def hash_value(value: object) -> str:
    """SHA-256 (64 hex digits) of a value made of dataclasses, mappings, sequences and scalars.

    Mapping order does not matter, sequence order does, and 1 differs from 1.0 and from "1".

    Raises:
        TypeError: a part of the value is of another type.
    """
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_texts(parts: Iterable[str]) -> str:
    """SHA-256 of a sequence of strings, each preceded by its length, so no two sequences collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def derive_seed(seed: int, *names: str | int | float) -> int:
    """A 63-bit seed for the stream named by ``names`` under ``seed``: same names, same stream."""
    return int(hash_value([seed, *names])[:16], 16) >> 1


def derive_rng(seed: int, *names: str | int | float) -> np.random.Generator:
    """The random stream named by ``names`` under ``seed``."""
    return np.random.default_rng(derive_seed(seed, *names))


def hash_each(texts: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each text alone, 64 bits, shape (n,)."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def scatter(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Each hash mixed with a seed (the finaliser of SplitMix64), shape (n,).

    An order by these is random, and leaving rows out moves no other row in it.
    """
    mixed = hashes + np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
