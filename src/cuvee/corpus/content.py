"""What a text says, however it is written: text identity, words, row ids made of the content, labels as classes."""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from sys import intern

import numpy as np
import pyarrow as pa
import regex
from numpy.typing import NDArray

from cuvee.errors import InputError, InputWarning

# characters that nobody sees: joiners, marks of direction, selectors of a variant; not the tags that name a flag
UNSEEN = (
    "\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-"
    "\ufe0f\ufeff\U000e0100-\U000e01ef"
)
_UNSEEN = regex.compile(f"[{UNSEEN}]")
_QUOTES = {code: "'" for code in b"\x18\x19\x1a\x1b"} | {code: '"' for code in b"\x1c\x1d\x1e\x1f"}
_QUOTES = {0x2000 + code: plain for code, plain in _QUOTES.items()}
# marks and quotation marks before a space or the end; their first part is apart where it follows a letter
_CLOSING = regex.compile(r"""(?<![.,;:!"'])(?:(?<=[\p{L}\p{M}])[.,;:!]++)?([.,;:!"']*+)(?= |$)""")
_MARKS = str.maketrans("", "", ".,;:")
# words by Unicode's annex 29, graphemes of scripts without spaces, and symbols; punctuation is no word
_TOKEN = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*|_*[\p{L}\p{N}\p{M}].*?\b|(?=\p{S})\X",
    flags=regex.WORD | regex.DOTALL,
)
_BATCH = 65_536  # rows that are Python strings at a time
_SHOWN = 5  # labels


def is_blank(text: str) -> bool:
    """Whether a text holds nothing that is seen."""
    return not _UNSEEN.sub("", text).strip()


def normalise_text(text: str) -> str:
    """What a text says: two texts that agree here are the same text, and two that differ may mean different things.

    Case, white space, unseen characters and the form of quotation marks are folded, by Unicode's canonical caseless
    matching; ``. , ; :`` before a space, a closing quotation mark or the end, and there ``!`` after a letter. All else
    stays: ``?``, accents and vowel signs, symbols, digits, emoji, operators.
    """
    folded = text.lower() if text.isascii() else fold_text(text).translate(_QUOTES)
    plain = _CLOSING.sub(lambda found: found[1].translate(_MARKS), " ".join(folded.split()))
    return " ".join(plain.split())


def fold_text(text: str) -> str:
    """The text without case, unseen characters and the ways to compose a letter."""
    return str(_UNSEEN.sub("", _fold(text)))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def split_tokens(text: str) -> list[str]:
    """Lower-case words and symbols, without punctuation; where a script has no spaces, each grapheme is one.

    Words are those of Unicode's annex 29. Equal words are one string, so that many texts take little room.
    """
    if text.isascii():
        return list(map(intern, _TOKEN.findall(text.lower())))
    words = _TOKEN.findall(_fold(text).translate(_QUOTES))
    return [intern(word) for found in words if (word := _UNSEEN.sub("", found))]


def end_of_tokens(text: str, tokens: int) -> int:
    """Where the first ``tokens`` tokens of a text end; its whole length where it has no more."""
    ends = [found.end() for found in islice(_TOKEN.finditer(text), tokens + 1)]
    return ends[tokens - 1] if len(ends) > tokens else len(text)


def content_ids(texts: pa.ChunkedArray, targets: pa.ChunkedArray) -> pa.Array:
    """An id of each row, 16 hex digits of its content; of rows with equal content the second has ``-2``, and so on."""
    parts: list[bytes] = []
    table = pa.table({"text": texts, "target": targets})
    for batch in table.to_batches(max_chunksize=_BATCH):
        pairs = zip(batch["text"].to_pylist(), batch["target"].to_pylist(), strict=True)
        parts.append(b"".join(hashlib.sha256(f"{text}\x00{target}".encode()).digest()[:8] for text, target in pairs))
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


def first_same(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each text the first row that says the same (by ``normalise_text``): its own where it is new, shape (n,)."""
    first: dict[str, int] = {}
    rows = (first.setdefault(normalise_text(text), row) for row, text in enumerate(texts))
    return np.fromiter(rows, dtype=np.int64, count=len(texts))


# --- labels as classes ---------------------------------------------------------------------------------
def warn_of_variants(labels: Iterable[str], where: str) -> None:
    """Warn of labels that differ by case, white space or unseen characters alone: each is a class of its own."""
    variants: dict[str, list[str]] = {}
    for label in labels:
        variants.setdefault("".join(fold_text(label).split()), []).append(label)
    same = [_listed(found) for found in variants.values() if len(found) > 1]
    if same:
        said = "; ".join(same[:_SHOWN])
        warnings.warn(
            f"{where}: labels that differ by case or blanks alone are classes of their own: {said}; write each in one "
            "way if they are one class",
            InputWarning,
            stacklevel=2,
        )


def compare_labels(
    known: Iterable[str], found: Iterable[str], *, known_name: str, found_name: str, needed: bool = True
) -> None:
    """Warn of labels of one set of rows, ``found``, that another one, ``known``, lacks. Rows without labels are none.

    Raises:
        InputError: both have labels, and no label in common, where they are ``needed`` for what is done.
    """
    ours, theirs = ({label for label in labels if label} for labels in (known, found))
    unknown = sorted(theirs - ours)
    if not ours or not unknown:
        return
    said = f"{found_name}: {{}} {_listed(unknown)}, and {known_name} has {_listed(sorted(ours))}"
    if needed and not ours & theirs:
        raise InputError(f"{said.format('has the labels')}: they have none in common; write labels in one way in both")
    warnings.warn(f"{said.format('unknown labels')}; rename them if they are the same", InputWarning, stacklevel=2)


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(repr(label[:40]) for label in labels[:_SHOWN]) + more
