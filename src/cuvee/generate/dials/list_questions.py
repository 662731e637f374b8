"""Asking an LLM for a list of short names (topics, attributes, their values), and reading it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cuvee.corpus import normalise_text
from cuvee.fingerprint import derive_seed
from cuvee.generate.calls import Api, Request, Sampling

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
class Wording:
    """What is asked for, in both forms.

    ``heading`` and ``listed`` are the headings of the examples and of the list in a completion; ``intro`` and
    ``asked`` say the same in chat. The number of items comes before ``listed`` and ``asked``.
    """

    heading: str
    listed: str
    intro: str
    asked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrompt:
    """How a list is asked for.

    ``describe`` says what the texts are, in the plural ("news headlines"), ``count`` how many items are wanted, ``api``
    the form to ask in. ``examples`` are texts to show, each cut to its first words; ``avoid`` are items that are known
    already, with whose list a completion goes on. Of ``sampling`` max_tokens is raised to what the list needs.
    ``attempt`` is the number of the request for the same list.

    Raises:
        ValueError: ``count`` is below 1.
    """

    describe: str
    count: int
    api: Api = "chat"
    examples: Sequence[str] = ()
    avoid: Sequence[str] = ()
    sampling: Sampling | None = None
    seed: int = 0
    attempt: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count {self.count!r}; must be 1 or more")


def list_question(wording: Wording, asked: ListPrompt, *names: str) -> Request:
    """A request for items, to be read with :func:`parse_list`; ``names`` tell apart the lists that share a seed."""
    count, api = asked.count, asked.api
    seed, replicate = derive_seed(asked.seed, *names, asked.attempt) & 0x7FFFFFFF, asked.attempt
    given = asked.sampling or Sampling(temperature=TEMPERATURE)
    drawn = replace(
        given,
        max_tokens=max(given.max_tokens, count * TOKENS_AN_ITEM),
        stop=("\n\n",) if api == "completions" else given.stop,
    )
    shown = "".join(f"- {' '.join(text.split()[:LONGEST_EXAMPLE])}\n" for text in asked.examples)
    named = list(asked.avoid[-MOST_NAMED:])
    if api == "completions":
        known = "".join(f"{number}. {name}\n" for number, name in enumerate(named, start=1))
        above = f"{wording.heading}:\n{shown}\n" if shown else ""
        prompt = f"{above}{len(named) + count} {wording.listed}:\n{known}{len(named) + 1}."
        return Request(prompt=prompt, sampling=drawn, seed=seed, replicate=replicate)
    above = f"{wording.intro}:\n{shown}\n" if shown else ""
    other = f" Other than: {', '.join(named)}." if named else ""
    user = f"{above}Name {count} {wording.asked}.{other}"
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


# --- attributes for the dial *attributes*, asked for from the LLM (AttrPrompt, arXiv 2306.15895). P ---
def dimension_question(asked: ListPrompt) -> Request:
    """A request for attributes of texts."""
    describe = asked.describe
    wording = Wording(
        heading=f"Some {describe}",
        listed=f"different attributes in which {describe} differ, whatever they are about, each in one to three words",
        intro=f"These are {describe}",
        asked=(
            f"different attributes in which {describe} can differ from each other, whatever they are about "
            "(such as style, length, point of view). Names alone, without values"
        ),
    )
    return list_question(wording, asked, "dimensions")


def value_question(dimension: str, asked: ListPrompt) -> Request:
    """A request for values of one attribute of texts."""
    describe = asked.describe
    wording = Wording(
        heading=f"Some {describe}",
        listed=f'different values of the attribute "{dimension}" of {describe}, each in one to three words',
        intro=f"These are {describe}",
        asked=f'different values that the attribute "{dimension}" of {describe} can have',
    )
    return list_question(wording, asked, "values", dimension)
