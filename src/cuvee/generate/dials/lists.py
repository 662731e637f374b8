"""Asking an LLM for a list of short names (topics, attributes and their values: AttrPrompt, arXiv 2306.15895). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cuvee.corpus import normalise_text
from cuvee.fingerprint import derive_seed
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.slots import ANY

TOKENS_AN_ITEM = 8
"""Of an answer that lists names: numbering, a few words, the line's end."""
LONGEST_ITEM = 8
"""Words; longer lines are sentences, not names."""
LONGEST_EXAMPLE = 30
"""Words of a text that is shown: what it is about is seen by then, and many texts fit into a small context."""
MOST_NAMED = 24
"""Items already found that a follow-up names, the latest ones: the prompt stays short whatever is wanted."""
TEMPERATURE = 0.7
SYSTEM = "You plan a varied data set. Answer with a numbered list alone, one item a line, one to three words each."

_ITEM = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])\s*")
_SPLIT = re.compile(r"\s*[,;]\s+")
_LEAD_IN = re.compile(r"^(?:sure|certainly|of course|here (?:is|are)|here's|topics?\b)", flags=re.IGNORECASE)
_EXPLAINED = re.compile(r"\s*(?::|\s[-–—]\s|\()")
"""Where a name ends and its explanation begins: ``Tone: formal or casual``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrompt:
    """How a list is asked for.

    ``describe`` says what the texts are, in the plural ("news headlines"), ``count`` how many items are wanted, ``api``
    the form to ask in. ``examples`` are texts to show, each cut to its first words; ``avoid`` are items that are known
    already, with whose list a completion goes on. Of ``sampling`` max_tokens is raised to what the list needs.
    ``attempt`` is the number of the request for the same list.
    """

    describe: str
    count: int
    api: Api = "chat"
    examples: Sequence[str] = ()
    avoid: Sequence[str] = ()
    sampling: Sampling | None = None
    seed: int = 0
    attempt: int = 0


def topic_question(label: str, asked: ListPrompt, within: Sequence[str] = ()) -> Request:
    """A request for topics of a label, to be read with :func:`parse_list`.

    Args:
        label: whose topics; ``any`` where texts have no labels.
        asked: how many, with what to show and what to avoid.
        within: the topic that subtopics are wanted of, and those above it, from the top.
    """
    kind = "" if label == ANY else " ".join(label.replace("_", " ").split())
    path, texts = ": ".join(within), asked.describe
    of_kind, named = (f' of the kind "{kind}"', f"{kind} {texts}") if kind else ("", texts)
    return _ask(
        asked,
        completion=(
            f"Some {named}",
            f"different {f'subtopics of {path} in' if path else 'topics of'} {named}, each in one to three words",
        ),
        chat=(
            f"These {texts} are{of_kind}" if kind else f"These are {texts}",
            f'different subtopics of "{path}" that {texts}{of_kind} can be about'
            if path
            else f"different topics that {texts}{of_kind} can be about",
        ),
        names=("topics", label, *within),
    )


def dimension_question(asked: ListPrompt) -> Request:
    """A request for attributes of texts."""
    texts = asked.describe
    return _ask(
        asked,
        completion=(
            f"Some {texts}",
            f"different attributes in which {texts} differ, whatever they are about, each in one to three words",
        ),
        chat=(
            f"These are {texts}",
            f"different attributes in which {texts} can differ from each other, whatever they are about "
            "(such as style, length, point of view). Names alone, without values",
        ),
        names=("dimensions",),
    )


def value_question(dimension: str, asked: ListPrompt) -> Request:
    """A request for values of one attribute of texts."""
    texts = asked.describe
    return _ask(
        asked,
        completion=(
            f"Some {texts}",
            f'different values of the attribute "{dimension}" of {texts}, each in one to three words',
        ),
        chat=(f"These are {texts}", f'different values that the attribute "{dimension}" of {texts} can have'),
        names=("values", dimension),
    )


def _ask(asked: ListPrompt, *, completion: tuple[str, str], chat: tuple[str, str], names: Sequence[str]) -> Request:
    """A request for items; ``names`` tell apart the lists that share a seed.

    Of each form: what stands over the examples, and what is asked for after the number of items.
    """
    seed, replicate = derive_seed(asked.seed, *names, asked.attempt) & 0x7FFFFFFF, asked.attempt
    given = asked.sampling or Sampling(temperature=TEMPERATURE)
    drawn = replace(
        given,
        max_tokens=max(given.max_tokens, asked.count * TOKENS_AN_ITEM),
        stop=("\n\n",) if asked.api == "completions" else given.stop,
    )
    shown = "".join(f"- {' '.join(text.split()[:LONGEST_EXAMPLE])}\n" for text in asked.examples)
    heading, listed = completion if asked.api == "completions" else chat
    above = f"{heading}:\n{shown}\n" if shown else ""
    named = list(asked.avoid[-MOST_NAMED:])
    if asked.api == "completions":
        known = "".join(f"{number}. {name}\n" for number, name in enumerate(named, start=1))
        prompt = f"{above}{len(named) + asked.count} {listed}:\n{known}{len(named) + 1}."
        return Request(prompt=prompt, sampling=drawn, seed=seed, replicate=replicate)
    other = f" Other than: {', '.join(named)}." if named else ""
    user = f"{above}Name {asked.count} {listed}.{other}"
    return Request(messages=(("system", SYSTEM), ("user", user)), sampling=drawn, seed=seed, replicate=replicate)


def parse_list(text: str, *, explained: bool = False) -> tuple[str, ...]:
    """Items in an answer, in its order, each once: from lines, or from one line of commas.

    Numbering, markup and closing points go; introductions and lines too long for a name are left out, unless
    they are a name and its explanation (``Tennis: all about ...``), of which the name is kept.

    Args:
        text: the answer.
        explained: drop what follows a colon, dash or bracket from short lines as well.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and not _ITEM.match(lines[0]):
        lines = _SPLIT.split(lines[0])
    items: dict[str, str] = {}
    for number, line in enumerate(lines):
        plain = _plain(_ITEM.sub("", line))
        intro = number == 0 and not _ITEM.match(line) and (line.rstrip().endswith(":") or _LEAD_IN.match(plain))
        if explained or len(plain.split()) > LONGEST_ITEM:
            plain = _plain(_EXPLAINED.split(plain)[0]) if _EXPLAINED.search(plain) else plain
        if normalise_text(plain) and not intro and len(plain.split()) <= LONGEST_ITEM:
            items.setdefault(plain.casefold(), plain)
    return tuple(items.values())


def _plain(line: str) -> str:
    return line.replace("**", "").strip().strip("\"'`“”").rstrip(".:;,").strip()
