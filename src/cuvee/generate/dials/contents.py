"""Dials of what rows are about: topics, combinations of attributes, seed examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from math import ceil, lcm, log, prod
from typing import TypeAlias

import numpy as np
import regex
from typing_extensions import override

from cuvee.corpus import Corpus, split_tokens
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.dials.slots import ANY, Part, PartsDial, whole_levels, whole_number

# A list of topics, or a mapping of each topic to its subtopics (an empty list: it has none).
Branches: TypeAlias = "Sequence[str] | Mapping[str, Branches]"
Combination = tuple[tuple[str, str], ...]  # one value of each dimension, as pairs (dimension, value)


class TopicsDial(PartsDial):
    """Level k spreads each label's rows of a block round robin over the first k topics of that label.

    See arXiv 2506.19262. Topic j of level k gets rows_per_label / k rows, rounded up for the first ones, so the topics
    of level 4, and their rows, are among those asked for level 8. Each level is judged on its own: a slot has the
    same row in all levels, unless that row equals one before it in one of them; there, and only there, the
    slot takes its next answer. Adding or dropping a level therefore changes no row of another.

    Args:
        levels: numbers of topics a label.
        topics: label -> its topics, in a fixed order, of which level k uses the first k; the entry ``any`` serves
            labels without one of their own, and so does a plain list. A label's topics may be a tree, a mapping of
            topics to subtopics (to any depth): level k then uses its first k leaves, spread over the tree from the top
            (see ``list_leaves``). ``topics_from_words`` finds some in the real data, ``ListAsker`` asks the LLM.

    Raises:
        ConfigError: a level is no whole number above 0, or a label has fewer distinct topics than the largest.
    """

    name = "topics"

    def __init__(self, *, levels: Sequence[int | float], topics: Mapping[str, Branches] | Sequence[str]) -> None:
        counts = whole_levels(self.name, levels)
        super().__init__([str(k) for k in counts], counts[-1] if counts else 1)
        given = topics if isinstance(topics, Mapping) else {ANY: topics}
        self._topics = {label: self._read(f"dial 'topics': label {label!r}", given[label]) for label in given}

    @override
    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        if missing := [label for label in labels if not self._topics_of(label)]:
            raise ConfigError(
                f"dial 'topics' has none for label {missing[0]!r}; give {self.levels[-1].name}, by name or as {ANY!r}"
            )
        super().check(labels, rows_per_label)

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [((topic,), {"topic": topic}) for topic in self._topics_of(label)[: int(level)]]

    def _topics_of(self, label: str) -> tuple[str, ...]:
        return self._topics.get(label, self._topics.get(ANY, ()))

    def _read(self, where: str, given: Branches) -> tuple[str, ...]:
        check_tree(where, given)
        leaves = list_leaves(given)
        if len({leaf.casefold() for leaf in leaves}) != len(leaves):
            raise ConfigError(f"{where} has a repeated topic; give each once")
        if len(leaves) < int(self.levels[-1].name):
            raise ConfigError(
                f"{where} has {len(leaves)} topics, level {self.levels[-1].name} needs as many; add some, or drop it"
            )
        return leaves


def list_leaves(branches: Branches) -> tuple[str, ...]:
    """The leaves of a tree of topics, breadth first: their order takes the branches of every node in turn.

    So the first leaves come from different topics of the top, as many as there are; among the next ones no topic
    comes a third time before all have come twice; and below each topic its subtopics take turns in the same way.
    A leaf is named by its path, like ``tennis: Wimbledon``; a topic without subtopics by itself.
    """
    if not isinstance(branches, Mapping):
        return tuple(" ".join(topic.split()) for topic in branches)
    parts = []
    for topic, below in branches.items():
        name = " ".join(topic.split())
        parts.append([f"{name}: {leaf}" for leaf in list_leaves(below)] or [name])
    longest = max((len(part) for part in parts), default=0)
    return tuple(part[turn] for turn in range(longest) for part in parts if turn < len(part))


def check_tree(where: str, given: object) -> Branches:
    """What was given, if it is a tree of topics, none of them empty or repeated.

    Raises:
        ConfigError: with the first node that is wrong.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence):
        raise ConfigError(f"{where} is {given!r}; give a list of topics, or map each topic to a list of subtopics")
    if odd := [topic for topic in given if not isinstance(topic, str)]:
        raise ConfigError(f"{where} has the topic {odd[0]!r}, which is no text; put it into quotes")
    if len({" ".join(topic.split()).casefold() for topic in given if topic.strip()}) != len(given):
        raise ConfigError(f"{where} has an empty or repeated topic; give each once")
    if isinstance(given, Mapping):
        for topic, below in given.items():
            check_tree(f"{where}.{topic}", below)
    return given


class AttributesDial(PartsDial):
    """Level k spreads each label's rows of a block round robin over the first k combinations of attribute values.

    The combinations of level 4 are among those of level 16, and so are their rows, as with topics (AttrPrompt, arXiv
    2306.15895). They come in an order in which the first k, for every k, hold each value of a dimension as often as any
    other, give or take one: level 2 already varies every dimension that has two values.

    Args:
        levels: numbers of combinations.
        dimensions: dimension -> its values, the same for every label: ``{"tone": ["formal", "casual"], ...}``.
        seed: of the order of the combinations.

    Raises:
        ConfigError: a level is no whole number above 0, the largest exceeds the combinations there are, or a
            dimension has no value or one twice.
    """

    name = "attributes"

    def __init__(
        self, *, levels: Sequence[int | float], dimensions: Mapping[str, Sequence[str]], seed: int = 0
    ) -> None:
        counts = whole_levels(self.name, levels)
        super().__init__([str(k) for k in counts], counts[-1] if counts else 1)
        for name, values in dimensions.items():
            texts = {value.casefold().strip() for value in values if value.strip()}
            if isinstance(values, str) or not texts or len(texts) != len(values):
                raise ConfigError(
                    f"dial 'attributes': dimension {name!r} has values {values!r}; give a list, none empty or repeated"
                )
        most = prod(len(values) for values in dimensions.values())
        if not dimensions or counts[-1] > most:
            raise ConfigError(
                f"dial 'attributes': level {counts[-1]} needs as many combinations, dimensions have "
                f"{most if dimensions else 0}; add values or drop the level"
            )
        self.combinations = tuple(islice(balanced_combinations(dimensions, seed=seed), counts[-1]))
        """Those of the largest level; level k uses the first k."""

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [(tuple(value for _, value in c), {"attributes": c}) for c in self.combinations[: int(level)]]


def balanced_combinations(dimensions: Mapping[str, Sequence[str]], *, seed: int) -> Iterator[Combination]:
    """All combinations of one value a dimension, each once, in a seeded order that is balanced from the start.

    Stepping to the next value in all dimensions at once runs through lcm(sizes) combinations, in which each
    dimension's values take turns, before it comes back to where it began; then another start is drawn. So in
    the first k combinations the counts of a dimension's values differ by one at most.
    """
    rng = derive_rng(seed, "attributes", *dimensions)
    values = {name: [given[i] for i in rng.permutation(len(given))] for name, given in dimensions.items()}
    sizes = np.array([len(given) for given in values.values()])
    seen: set[tuple[int, ...]] = set()
    total = prod(int(size) for size in sizes)
    while len(seen) < total:
        start = rng.integers(sizes)
        if tuple(start) in seen:
            continue
        for step in range(lcm(*(int(size) for size in sizes))):
            place = tuple(int(i) for i in (start + step) % sizes)
            seen.add(place)
            yield tuple((name, values[name][i]) for name, i in zip(values, place, strict=True))


class ExamplesDial(PartsDial):
    """Level k lets the prompts of a label show k different seed examples over a block, a few at a time.

    Rotating the seed examples is the plainest way to vary few-shot prompts, and choosing them at random is as good a
    default as informed ways of choosing (arXiv 2410.10756). The first k examples of the label's order are cut into sets
    of ``shown``; rows take the sets in turn, so each example is shown equally often (the last set is filled up from the
    first examples). Levels that share a set share its rows: with shown = 4, those of level 16 begin with the 4 examples
    of level 4. A level below ``shown`` shows all its examples in every prompt, and so fewer than the levels above it.

    Args:
        levels: numbers of seed examples.
        shown: seed examples in a prompt.

    Raises:
        ConfigError: a level or ``shown`` is no whole number above 0.
    """

    name = "examples"

    def __init__(self, *, levels: Sequence[int | float], shown: int = 4) -> None:
        counts = whole_levels(self.name, levels)
        self._shown = whole_number(self.name, "shown", shown)
        super().__init__([str(k) for k in counts], ceil(max(counts, default=1) / self._shown))

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        k, parts = int(level), list[Part]()
        for first in range(0, k, self._shown):
            places = tuple((first + i) % k for i in range(min(self._shown, k)))
            parts.append((("-".join(map(str, places)),), {"examples": places}))
        return parts


# English words that are typical of nothing. Other languages go without: there they weigh little as they stand
# in the texts of every label, or are left out by :func:`common_words` where there is one label.
_WORD = regex.compile(r"[\p{L}\p{M}]{3,}")
FUNCTION_WORDS = frozenset(
    "a about after again all also am an and any are as at be because been before being but by can could did do does "
    "for from get gets had has have he her here him his how i if in into is it its just may me more most my new no not "
    "now of off on one or our out over own says she should so some than that the their them then there these they this "
    "those to too under up us very was way we were what when where which while who why will with would you your".split()
)
STOP_SHARE = 0.3  # of the texts of an only label: a word that stands in more of them is typical of nothing
# Texts that a word must stand in to be left out so: in a few texts, 30% of them says nothing.
LEAST_STOPPED = 6


def find_words(text: str) -> list[str]:
    """Words of three letters and more, in lower case, but no function words."""
    words = (word.partition("'")[0] for word in split_tokens(text))
    return [word for word in words if _WORD.fullmatch(word) and word not in FUNCTION_WORDS]


def weigh_words(texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Label -> word -> how characteristic it is of the label's texts.

    The class-based tf-idf of BERTopic (arXiv 2203.05794), W = tf(w, c) log(1 + A / f(w)), where tf is the share of
    the class's words, f(w) the frequency over all classes and A the mean number of words of a class; a word counts
    once a text. With one label there is nothing to contrast: the weight then rises with the frequency alone.
    """
    counts = {label: Counter(w for t in given for w in set(find_words(t))) for label, given in texts.items()}
    total: Counter[str] = Counter()
    for counted in counts.values():
        total.update(counted)
    mean = sum(total.values()) / max(len(counts), 1)
    return {
        label: {word: n / counted.total() * log(1 + mean / total[word]) for word, n in counted.items()}
        for label, counted in counts.items()
    }


def characteristic_words(
    texts: Mapping[str, Sequence[str]], label: str, count: int, *, exclude: Collection[str] = ()
) -> tuple[str, ...]:
    """The ``count`` words most characteristic of ``label``, or as many as there are; ties in alphabetical order."""
    weights = weigh_words(texts).get(label, {})
    ranked = sorted((word for word in weights if word not in exclude), key=lambda w: (-weights[w], w))
    return tuple(ranked[:count])


def common_words(texts: Sequence[str]) -> frozenset[str]:
    """Words in so many of the texts that they are typical of nothing: more than 30%, and at least six."""
    counted = Counter(word for text in texts for word in set(find_words(text)))
    most = max(LEAST_STOPPED - 1, STOP_SHARE * len(texts))
    return frozenset(word for word, n in counted.items() if n > most)


# --- topics for the dial *topics*: found in the real data, or asked for from the LLM. Pure ---
def topics_from_words(
    texts: Corpus | Mapping[str, Sequence[str]], per_label: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Label -> words of its real rows that can serve as topics, in the order in which levels should take them.

    Words are weighed by how characteristic they are of their label (class-based tf-idf); where there is one label
    only, by their frequency, without words that stand in 30% of the texts. The first is the weightiest; each
    further one is weighed by the share of its rows that hold none of those taken so far, so that the topics spread over
    the label instead of naming one theme many times. A word of another label's list is taken where it is typical of
    both.

    Args:
        texts: label -> its real training texts, or the real training rows of a classification task.
        per_label: topics a label.
        seed: of the order of words that weigh the same.

    Raises:
        ConfigError: a label has fewer words that could be topics.
    """
    by_label = texts_by_label(texts) if isinstance(texts, Corpus) else texts
    weights = weigh_words(by_label)
    if len(by_label) == 1:  # nothing to contrast with: frequent words would be those of any text
        ((label, own),) = by_label.items()
        common = common_words(own)
        weights = {label: {word: weight for word, weight in weights[label].items() if word not in common}}
    found = {label: _spread_words(label, own, weights[label], per_label, seed) for label, own in by_label.items()}
    poorest = min(found, key=lambda label: len(found[label]))
    if len(found[poorest]) < per_label:
        raise ConfigError(
            f"dial 'topics': the real rows of label {poorest!r} hold {len(found[poorest])} words that could be topics, "
            f"{per_label} are wanted; give topics by hand, ask the LLM for them, or lower the largest level"
        )
    written = {label: _spellings(own) for label, own in by_label.items()}
    return {label: tuple(written[label].get(word, word) for word in words) for label, words in found.items()}


def texts_by_label(train: Corpus) -> dict[str, tuple[str, ...]]:
    """Label -> its texts; all texts under the one label ``any`` where the task has no labels."""
    if train.task != "classification":
        return {ANY: tuple(train.texts)}
    found: dict[str, list[str]] = {label: [] for label in train.labels}
    for text, label in zip(train.texts, train.targets, strict=True):
        found[label].append(text)
    return {label: tuple(own) for label, own in found.items()}


def _spread_words(label: str, texts: Sequence[str], weights: Mapping[str, float], count: int, seed: int) -> list[str]:
    rows: dict[str, set[int]] = {}
    for row, text in enumerate(texts):
        for word in find_words(text):
            rows.setdefault(word, set()).add(row)
    own = set(find_words(label))
    # a word of one row alone is hardly a topic: such words come last
    often = {word: len(found) > 1 for word, found in rows.items()}
    names = sorted(word for word in rows if word not in own and word in weights)
    tie = dict(zip(names, derive_rng(seed, "topic-words", label).permutation(len(names)).tolist(), strict=True))
    taken: list[str] = []
    covered: set[int] = set()
    while len(taken) < min(count, len(names)):
        left = [word for word in names if word not in taken]
        fresh = {word: len(rows[word] - covered) / len(rows[word]) * weights[word] for word in left}
        taken.append(max(left, key=lambda w: (often[w], fresh[w], weights[w], tie[w])))
        covered |= rows[taken[-1]]
    return taken


def _spellings(texts: Sequence[str]) -> dict[str, str]:
    """Word in lower case -> how it is most often written."""
    written: dict[str, Counter[str]] = {}
    for text in texts:
        for word in re.findall(r"[^\W\d_]{3,}", text):
            for plain in find_words(word):
                written.setdefault(plain, Counter())[word] += 1
    return {plain: counted.most_common(1)[0][0] for plain, counted in written.items()}
