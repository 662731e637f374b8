"""What a text says, whatever its case and punctuation: its words, and row ids made of the content."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from sys import intern

import numpy as np
import pyarrow as pa

_PUNCTUATION = re.compile(r"[^\w\s]|_", flags=re.UNICODE)
_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()}
# Han, kana, Hangul, Thai: written without spaces or too short a word to count as one token
_TOKEN = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_]+")
_BATCH = 65_536  # rows that are Python strings at a time


def normalise_text(text: str) -> str:
    """Lower case, no punctuation, single spaces: two texts that agree here are the same text."""
    if text.isascii():  # the same, in a quarter of the time
        return " ".join(text.lower().translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def split_tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; each character of an unspaced script is a token of its own."""
    return split_normalised(normalise_text(text))


def split_normalised(text: str) -> list[str]:
    """The tokens of what ``normalise_text`` gave. Equal words are one string, so that many texts take little room."""
    return list(map(intern, text.split() if text.isascii() else _TOKEN.findall(text)))


def content_id(text: str, target: str) -> str:
    """A row id made of the content: 16 hex digits."""
    return _content_digest(text, target)[:8].hex()


def _content_digest(text: str, target: str) -> bytes:
    return hashlib.sha256(f"{text}\x00{target}".encode("utf-8", "surrogatepass")).digest()


def content_ids(texts: pa.ChunkedArray, targets: pa.ChunkedArray) -> pa.Array:
    """The content id of each row; of rows with equal content the second has ``-2`` at its end, and so on."""
    parts: list[bytes] = []
    table = pa.table({"text": texts, "target": targets})
    for batch in table.to_batches(max_chunksize=_BATCH):
        pairs = zip(batch["text"].to_pylist(), batch["target"].to_pylist(), strict=True)
        parts.append(b"".join(_content_digest(text, target)[:8] for text, target in pairs))
    digests = np.frombuffer(b"".join(parts), dtype=">u8")
    order = np.argsort(digests, kind="stable")
    first = np.flatnonzero(np.diff(digests[order], prepend=digests[order][:1] + 1))  # of each run of equal ones
    number = np.empty(len(digests), dtype=np.int64)
    number[order] = np.arange(len(digests)) - np.repeat(first, np.diff(np.append(first, len(digests)))) + 1
    ids = []
    for start in range(0, len(digests), _BATCH):
        whole = digests[start : start + _BATCH].tobytes().hex()
        ends = number[start : start + _BATCH].tolist()
        names = (whole[16 * k : 16 * k + 16] + (f"-{end}" if end > 1 else "") for k, end in enumerate(ends))
        ids.append(pa.array(names, pa.string()))
    return pa.chunked_array(ids, pa.string()).combine_chunks()
