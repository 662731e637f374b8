"""Equal rows of matched length: which rows each corpus gives, texts cut to equal words, and what did not match."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, split_tokens
from cuvee.fingerprint import derive_rng
from cuvee.measure.measuring import pick_groups

Counts = NDArray[np.int64]

MAX_STRATA = 8
ROWS_A_STRATUM = 10
NOTABLE_LENGTHS = 0.1  # a standardised mean difference below it counts as balanced (Austin 2009, Stat Med 28)
NOTABLE_LABELS = 0.1
_QUANTILES = 1000
_ASCII_TOKEN = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How rows are drawn from each corpus.

    Attributes:
        rows: of each corpus in the comparison.
        strata: corpus -> stratum of word count of each row, shape (rows of the corpus,); empty where lengths
            are not matched.
        quota: rows to draw from each stratum, shape (strata,), the same for every corpus; empty likewise.
        notes: why lengths could not be matched.
    """

    rows: int
    strata: Mapping[str, Counts]
    quota: Counts
    notes: tuple[str, ...] = ()

    def pick(self, name: str, corpus: Corpus, seed: int) -> Counts:
        """A draw: ``rows`` rows of the corpus in order, whole groups first; all where it has no more."""
        if name not in self.strata or len(corpus) == self.rows:
            return pick_groups(corpus, self.rows, seed=seed)
        return _pick_matched(corpus, self.strata[name], self.quota, seed)

    def fraction(self, name: str, corpus: Corpus) -> float:
        """Fraction of the corpus that a draw uses, weighted by where its rows come from.

        A stratum that is used up gives every draw the same rows, so its share of the draw counts in full:
        ``sum_s (n_s / n) (n_s / N_s)``, which is n / N where nothing is matched.
        """
        if name not in self.strata:
            return self.rows / len(corpus)
        held = np.bincount(self.strata[name], minlength=len(self.quota))
        return float(np.sum(self.quota * (self.quota / held)) / self.rows)


def plan_rows(word_counts: Mapping[str, Counts], *, rows: int | None, match_lengths: bool) -> RowPlan:
    """Equal rows for every corpus and, where the corpora's lengths overlap enough, equal rows of each length.

    Lengths are matched in strata of word count: at most 8 quantile bins of all corpora pooled (each corpus
    with equal weight), of at least ten rows on average in the smallest. Every corpus then gives as many rows
    of a stratum as the corpus that has fewest of it. They are not matched, and a note says so, where a corpus
    has no rows in a stratum, where it would cost more than half of the smallest corpus, or where more ``rows``
    are asked for than can be matched.

    Args:
        word_counts: corpus -> words of each row.
        rows: of each corpus; None takes as many as possible.
        match_lengths: whether to match at all.

    Raises:
        ValueError: ``rows`` below 1 or above the smallest corpus.
    """
    smallest = min(len(counts) for counts in word_counts.values())
    if rows is not None and not 1 <= rows <= smallest:
        raise ValueError(f"rows is {rows!r}; the smallest corpus has {smallest}, give 1 to {smallest}")
    free = rows or smallest
    strata = _stratify(word_counts, min(MAX_STRATA, smallest // ROWS_A_STRATUM)) if match_lengths else {}
    count = 1 + max((int(s.max()) for s in strata.values()), default=0)
    if count < 2:
        return RowPlan(rows=free, strata={}, quota=np.zeros(0, dtype=np.int64))
    held = {name: np.bincount(s, minlength=count) for name, s in strata.items()}
    quota = np.min(list(held.values()), axis=0).astype(np.int64)
    possible = int(quota.sum())
    obstacle = _find_obstacle(word_counts, strata, held, possible, smallest, rows)
    if obstacle:
        note = f"lengths not matched: {obstacle}"
        return RowPlan(rows=free, strata={}, quota=np.zeros(0, dtype=np.int64), notes=(note,))
    shared = quota if rows is None else _share_out(quota, rows)
    return RowPlan(rows=int(shared.sum()), strata=strata, quota=shared)


def standardised_difference(samples: Sequence[Counts]) -> float:
    """Largest standardised difference of mean word counts between two samples: means over the pooled deviation.

    ``|m1 - m2| / sqrt((s1^2 + s2^2) / 2)`` (Austin 2009, Statistics in Medicine 28); infinite for different means
    without any spread.
    """
    largest = 0.0
    for one, other in combinations(samples, 2):
        apart = abs(float(one.mean()) - float(other.mean()))
        spread = float(np.sqrt((one.var() + other.var()) / 2))
        if apart > 0:
            largest = max(largest, apart / spread if spread > 0 else float("inf"))
    return largest


def note_lengths(samples: Mapping[str, Counts]) -> tuple[str, ...]:
    """A note where the word counts of the rows compared differ notably.

    Args:
        samples: corpus -> words of each row drawn.
    """
    difference = standardised_difference(list(samples.values()))
    if difference <= NOTABLE_LENGTHS:
        return ()
    return (
        f"lengths differ by {difference:.2g} standard deviations (mean words: {_list_means(samples)}): numbers of "
        "full texts, such as those of meaning, may differ for that alone",
    )


def note_cut_lengths(samples: Mapping[str, Counts], words: int | None) -> tuple[str, ...]:
    """A note where texts differ in length even when cut to ``words``, because many are shorter."""
    if words is None:
        return ()
    cut = {name: np.minimum(counts, words) for name, counts in samples.items()}
    if standardised_difference(list(cut.values())) <= NOTABLE_LENGTHS:
        return ()
    return (f"cut to {words} words, texts still differ in length (mean words: {_list_means(cut)}); give fewer words",)


def note_labels(corpora: Mapping[str, Corpus]) -> tuple[str, ...]:
    """A note where classification corpora have different labels, or shares of labels.

    Labels are not balanced silently: a pool that covers fewer labels *is* less diverse, and whoever wants
    diversity within labels compares label by label.
    """
    if any(corpus.task != "classification" for corpus in corpora.values()):
        return ()
    shares = {name: {k: v / len(c) for k, v in c.label_counts().items()} for name, c in corpora.items()}
    largest, note = NOTABLE_LABELS, ""
    for one, other in combinations(shares, 2):
        labels = sorted({*shares[one], *shares[other]})
        gaps = [shares[one].get(label, 0.0) - shares[other].get(label, 0.0) for label in labels]
        apart = sum(abs(gap) for gap in gaps) / 2
        if apart > largest:
            at = int(np.argmax(np.abs(gaps)))
            ours, theirs = (f"{100 * shares[name].get(labels[at], 0.0):.0f}% of {name}" for name in (one, other))
            largest = apart
            note = (
                f"labels are not balanced: {labels[at]!r} is {ours} and {theirs}; "
                "give corpora of equal label counts to compare diversity within labels"
            )
    return (note,) if note else ()


def _list_means(samples: Mapping[str, Counts]) -> str:
    return ", ".join(f"{name} {counts.mean():.1f}" for name, counts in samples.items())


def _stratify(word_counts: Mapping[str, Counts], bins: int) -> dict[str, Counts]:
    """Stratum of each row by quantiles of word count over all corpora of equal weight; none below two bins."""
    if bins < 2:
        return {}
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    pooled = np.concatenate([np.quantile(c, levels, method="inverted_cdf") for c in word_counts.values()])
    edges = np.unique(np.quantile(pooled, np.arange(1, bins) / bins, method="inverted_cdf"))
    raw = {name: np.searchsorted(edges, counts, side="left") for name, counts in word_counts.items()}
    used = np.unique(np.concatenate(list(raw.values())))  # a stratum that no corpus has is none
    return {name: np.searchsorted(used, strata).astype(np.int64) for name, strata in raw.items()}


def _find_obstacle(
    word_counts: Mapping[str, Counts],
    strata: Mapping[str, Counts],
    held: Mapping[str, Counts],
    possible: int,
    smallest: int,
    rows: int | None,
) -> str:
    """Why lengths cannot be matched; empty where they can."""
    for name, counts in held.items():
        for empty in np.flatnonzero(counts == 0).tolist():
            there = np.concatenate([word_counts[k][strata[k] == empty] for k in held])
            least, most = there.min(), there.max()
            return f"{name} has no text of {least if least == most else f'{least} to {most}'} words"
    if 2 * possible < smallest:
        return f"only {possible} of {smallest} rows would be left"
    if rows is not None and rows > possible:
        return f"that is possible for at most {possible} rows, and {rows} were asked for"
    return ""


def _share_out(quota: Counts, rows: int) -> Counts:
    """``rows`` over the strata in proportion to ``quota``, by largest remainders."""
    exact = quota * (rows / quota.sum())
    out = np.floor(exact).astype(np.int64)
    left = rows - int(out.sum())
    out[np.argsort(out - exact, kind="stable")[:left]] += 1
    shared: Counts = np.minimum(out, quota)
    return shared


def _pick_matched(corpus: Corpus, strata: Counts, quota: Counts, seed: int) -> Counts:
    """``quota`` rows of each stratum, in order: groups in one seeded order for all strata."""
    rng = derive_rng(seed, "matched-rows")
    names = list(dict.fromkeys(corpus.groups))
    place = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    of_group = np.array([place[group] for group in corpus.groups])
    order = np.lexsort((rng.permutation(len(corpus)), of_group))
    taken = [order[strata[order] == s][:wanted] for s, wanted in enumerate(quota.tolist())]
    return np.sort(np.concatenate(taken))


# --- equal words ---
def truncate_words(text: str, words: int) -> str:
    """The text up to the end of its first ``words`` tokens, as ``split_tokens`` counts them.

    Characters and punctuation between the kept tokens stay as they are. A text of at most ``words`` tokens comes
    back whole, closing punctuation included. A single character that reads as two words (a fraction sign, 1/2) is
    never cut: it goes where both fit, or stays where nothing else would.

    Args:
        text: any text.
        words: tokens to keep, at least 1.

    Raises:
        ValueError: ``words`` below 1.
    """
    if words < 1:
        raise ValueError(f"words is {words!r}; give a whole number of at least 1")
    if text.isascii():
        return _truncate_ascii(text, words)
    if len(split_tokens(text)) <= words:
        return text
    # tokens are those of the normalised text, whose characters do not map one to one on the original ones; but
    # a longer prefix never has fewer tokens, so the places where their number rises can be searched for
    prefixes = range(len(text) + 1)
    longest = bisect_right(prefixes, words, key=lambda end: len(split_tokens(text[:end]))) - 1
    kept = split_tokens(text[:longest])
    if not kept:
        longest += 1
        kept = split_tokens(text[:longest])
    shortest = bisect_left(prefixes[: longest + 1], len(kept), key=lambda end: len(split_tokens(text[:end])))
    return text[: _end_of_tokens(text, kept, shortest, longest)]


def _truncate_ascii(text: str, words: int) -> str:
    end = len(text)
    for count, match in enumerate(_ASCII_TOKEN.finditer(text), start=1):
        if count == words:
            end = match.end()
        elif count > words:
            return text[:end]
    return text


def _end_of_tokens(text: str, tokens: list[str], shortest: int, longest: int) -> int:
    """The first end from ``shortest`` on at which the prefix has ``tokens``; ``longest`` has them."""
    return next(end for end in range(shortest, longest + 1) if split_tokens(text[:end]) == tokens)
