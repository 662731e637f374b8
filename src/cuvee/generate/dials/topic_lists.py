"""Topics for the dial *topics*: found in the real data, or asked for from the LLM. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.words import find_words, weigh_words

TOKENS_A_TOPIC = 8
"""Of an answer that lists topics: numbering, a few words, the line's end."""
LONGEST_TOPIC = 8
"""Words; longer lines are sentences, not topics."""

_ITEM = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])\s*")
_SPLIT = re.compile(r"\s*[,;]\s+")
_LEAD_IN = re.compile(r"^(?:sure|certainly|of course|here (?:is|are)|here's|topics?\b)", flags=re.IGNORECASE)


def topics_from_words(train: Corpus, per_label: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Label -> words of its real rows that can serve as topics, in the order in which levels should take them.

    Words are weighed by how characteristic they are of their label (class-based tf-idf). The first is the
    weightiest; each further one is weighed by the share of its rows that hold none of those taken so far, so that
    the topics spread over the label instead of naming one theme many times. A word of another label's
    list is taken where it is typical of both.

    Args:
        train: the real training rows.
        per_label: topics a label.
        seed: of the order of words that weigh the same.

    Raises:
        ConfigError: a label has fewer words that could be topics.
        ValueError: ``per_label`` is below 1.
    """
    if per_label < 1:
        raise ValueError(f"per_label {per_label!r}; must be 1 or more")
    texts = {
        label: [t for t, y in zip(train.texts, train.targets, strict=True) if y == label] for label in train.labels
    }
    weights = weigh_words(texts)
    found = {}
    for label in train.labels:
        words = _spread_words(label, texts[label], weights[label], per_label, seed)
        if len(words) < per_label:
            raise ConfigError(
                f"dial 'topics': the real rows of label {label!r} hold {len(words)} words that could be topics, "
                f"{per_label} are wanted; give topics by hand, ask the LLM for them, or lower the largest level"
            )
        written = _spellings(texts[label])
        found[label] = tuple(written.get(word, word) for word in words)
    return found


def topic_question(
    label: str, describe: str, count: int, *, api: Api = "chat", examples: Sequence[str] = (),
    sampling: Sampling | None = None, seed: int = 0,
) -> Request:  # fmt: skip
    """A request for ``count`` topics of a label, to be read with :func:`parse_topics`.

    Args:
        label: whose topics.
        describe: what the texts are, in the plural ("news headlines").
        count: of topics.
        api: the form to ask in.
        examples: real training texts of the label, to show what is meant.
        sampling: max_tokens is raised to what the list needs.
        seed: of the request.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count {count!r}; must be 1 or more")
    kind, given = " ".join(label.replace("_", " ").split()), sampling or Sampling(temperature=0.7)
    drawn = replace(
        given,
        max_tokens=max(given.max_tokens, count * TOKENS_A_TOPIC),
        stop=("\n\n",) if api == "completions" else given.stop,
    )
    shown = "".join(f"- {' '.join(text.split())}\n" for text in examples)
    derived = derive_seed(seed, "topics", label) & 0x7FFFFFFF
    if api == "completions":
        intro = f"Some {kind} {describe}:\n{shown}\n" if shown else ""
        prompt = f"{intro}{count} different topics of {kind} {describe}, each in one to three words:\n1."
        return Request(prompt=prompt, sampling=drawn, seed=derived)
    system = "You plan a varied data set. Answer with a numbered list alone, one topic a line, one to three words each."
    intro = f'These {describe} are of the kind "{kind}":\n{shown}\n' if shown else ""
    user = f'{intro}Name {count} different topics that {describe} of the kind "{kind}" can be about.'
    return Request(messages=(("system", system), ("user", user)), sampling=drawn, seed=derived)


def parse_topics(text: str) -> tuple[str, ...]:
    """Topics in an answer, in its order, each once: from lines, or from one line of commas.

    Numbering, markup and closing points go; introductions and lines too long for a topic are left out.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and not _ITEM.match(lines[0]):
        lines = _SPLIT.split(lines[0])
    topics: dict[str, str] = {}
    for number, line in enumerate(lines):
        plain = _ITEM.sub("", line).replace("**", "").strip().strip("\"'`“”").rstrip(".:;,").strip()
        intro = number == 0 and not _ITEM.match(line) and (line.rstrip().endswith(":") or _LEAD_IN.match(plain))
        if plain and not intro and len(plain.split()) <= LONGEST_TOPIC:
            topics.setdefault(plain.casefold(), plain)
    return tuple(topics.values())


def _spread_words(label: str, texts: Sequence[str], weights: Mapping[str, float], count: int, seed: int) -> list[str]:
    rows: dict[str, set[int]] = {}
    for row, text in enumerate(texts):
        for word in find_words(text):
            rows.setdefault(word, set()).add(row)
    own = set(find_words(label))
    # a word of one row alone is hardly a topic: such words come last
    often = {word: len(found) > 1 for word, found in rows.items()}
    names = sorted(word for word in rows if word not in own)
    tie = dict(zip(names, derive_rng(seed, "topic-words", label).permutation(len(names)).tolist(), strict=True))
    taken: list[str] = []
    covered: set[int] = set()
    while len(taken) < min(count, len(names)):
        left = (word for word in names if word not in taken)
        taken.append(max(left, key=lambda w: (often[w], _uncovered(rows[w], covered) * weights[w], weights[w], tie[w])))
        covered |= rows[taken[-1]]
    return taken


def _uncovered(rows: set[int], covered: set[int]) -> float:
    return len(rows - covered) / len(rows)


def _spellings(texts: Sequence[str]) -> dict[str, str]:
    """Word in lower case -> how it is most often written."""
    written: dict[str, Counter[str]] = {}
    for text in texts:
        for word in re.findall(r"[^\W\d_]{3,}", text):
            for plain in find_words(word):
                written.setdefault(plain, Counter())[word] += 1
    return {plain: counted.most_common(1)[0][0] for plain, counted in written.items()}
