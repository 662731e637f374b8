"""One-off questions: topics, attributes and their values are asked for before rows are.

Lists nest as levels do: a request never depends on how many items are wanted, so a shorter list is the beginning
of a longer one, and asking for more goes on where the ledger ends. Attributes: AttrPrompt, arXiv 2306.15895.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from cuvee.corpus import normalise_text, split_tokens
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.generate.calls import Endpoint, Failure, Outcome, Request, Sampling
from cuvee.generate.client import Find, OpenedLLM, answer_all
from cuvee.generate.dials.slots import ANY
from cuvee.generate.ledger import Ledger
from cuvee.generate.parsing import readable
from cuvee.generate.prompts import SUFFIX, Value, read_prompt
from cuvee.generate.replies import how_ended, strip_thoughts

# Asked for at once, however many are wanted: few enough that a small model does not lose the thread.
ITEMS_A_REQUEST = 8
EXAMPLES_SHOWN = 4
ATTEMPTS = 4  # answers in a row that may bring nothing new before a list is given up
TOKENS_AN_ITEM = 8  # of an answer that lists names: numbering, a few words, the line's end
LONGEST_ITEM = 8  # words; longer lines are sentences, not names
# Words of a text that is shown: what it is about is seen by then, and many texts fit into a small context.
LONGEST_EXAMPLE = 30
MOST_NAMED = 24  # how many of the latest items a follow-up request names, so that its prompt stays short
TEMPERATURE = 0.7
_PROMPTS = Path(__file__).with_name("list_prompts")
_ITEM = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])\s*")
_SPLIT = re.compile(r"\s*[,;]\s+")
_LEAD_IN = re.compile(r"^(?:sure|certainly|of course|here (?:is|are)|here's|topics?\b)", flags=re.IGNORECASE)
# Where a name ends and its explanation begins: ``Tone: formal or casual``.
_EXPLAINED = re.compile(r"\s*(?::|\s[-–—]\s|\()")


@dataclass(kw_only=True)
class WantedList:
    """A list that the LLM is asked for, with the items that it has named so far.

    ``listed`` is what it names: topics of a label (``any`` is none), dimensions in which texts differ, or values of
    one; ``about`` is that label or dimension. Some of ``texts`` are shown as examples. No item is ``about`` itself, one
    of the texts, or ``barred``.
    """

    listed: Literal["topics", "dimensions", "values"]
    about: str = ""
    texts: Sequence[str]
    count: int
    barred: Sequence[str] = ()
    found: list[str] = field(default_factory=list)
    attempts: int = 0
    in_vain: int = 0
    trouble: str = ""

    @property
    def title(self) -> str:
        """What it is, for messages."""
        if self.listed == "dimensions":
            return "attributes"
        return f"{'topics of label' if self.listed == 'topics' else 'values of attribute'} {self.about!r}"

    @cached_property
    def never(self) -> frozenset[str]:
        """What no item may say, normalised."""
        return frozenset(map(normalise_text, filter(None, (self.about, *self.barred, *self.texts))))

    def ask(self, endpoint: Endpoint, seed: int, describe: str) -> Request:
        """The next request; a completion goes on with the items that are known."""
        names = (self.listed, self.about) if self.about else (self.listed,)
        rng = derive_rng(seed, "list-examples", *(names if self.is_explained else names[1:]), self.attempts)
        texts = [self.texts[i] for i in rng.permutation(len(self.texts))[:EXAMPLES_SHOWN]]
        drawn = derive_seed(seed, *names, self.attempts) & 0x7FFFFFFF
        completes, tokens = endpoint.api == "completions", ITEMS_A_REQUEST * TOKENS_AN_ITEM
        sampling = Sampling(temperature=TEMPERATURE, max_tokens=tokens, stop=("\n\n",) if completes else ())
        values: dict[str, Value] = {
            "listed": self.listed,
            "about": "" if self.about == ANY else readable(self.about) if self.listed == "topics" else self.about,
            "describe": describe,
            "count": ITEMS_A_REQUEST,
            "examples": [" ".join(text.split()[:LONGEST_EXAMPLE]) for text in texts],
            "items": self.found[-MOST_NAMED:],
        }
        forms = ("completion",) if completes else ("chat_system", "chat_user")
        prompts = [read_prompt(_PROMPTS / f"list_{form}{SUFFIX}").render(values) for form in forms]
        asked = Request(sampling=sampling, seed=drawn, replicate=self.attempts)
        if completes:
            return replace(asked, prompt=prompts[0])
        return replace(asked, messages=tuple(zip(("system", "user"), prompts, strict=True)))

    def take(self, outcome: Outcome) -> None:
        """Add the new items of an answer; one that broke off loses its last line, which may be half an item."""
        self.attempts += 1
        before = len(self.found)
        if isinstance(outcome, Failure):
            self.trouble = f" (the last request failed: {outcome.message or outcome.reason})"
        else:
            text = strip_thoughts(outcome.text)
            text = text.rpartition("\n")[0] if how_ended(outcome.finish_reason) == "cut" else text
            known = {normalise_text(item) for item in self.found} | self.never
            for item in parse_list(text, explained=self.is_explained):
                if normalise_text(item) not in known:
                    known.add(normalise_text(item))
                    self.found.append(item)
        self.in_vain = 0 if len(self.found) > before else self.in_vain + 1

    @property
    def is_explained(self) -> bool:
        """Whether names come with explanations, as those of attributes and values do; see :func:`parse_list`."""
        return self.listed != "topics"

    @property
    def items(self) -> tuple[str, ...]:
        """The wanted number of items, in the order in which they were found."""
        return tuple(self.found[: self.count])


@dataclass(eq=False)
class ListAsker:
    """Asks an LLM for the lists that dials need; every answer is journalled, so that asking again sends nothing.

    Args:
        llm: what is asked.
        ledger: its answers so far; new ones are added.
        describe: what the texts are, in the plural, for the prompts.
        seed: of requests, and of the real texts that they show.
    """

    llm: OpenedLLM
    ledger: Ledger
    _: KW_ONLY
    describe: str = "examples"
    seed: int = 0

    def topics(self, texts: Mapping[str, Sequence[str]], count: int) -> dict[str, tuple[str, ...]]:
        """Label -> its topics, ``count`` of them. A topic is never the label, or one of the texts.

        Args:
            texts: label -> its real training texts, of which a few are shown.
            count: topics of each label.

        Raises:
            ConfigError: a list stays short, naming the label and how many were found.
            EndpointError: the endpoint failed; the ledger keeps all answers.
        """
        lists = {name: WantedList(listed="topics", about=name, texts=own, count=count) for name, own in texts.items()}
        self._fill(list(lists.values()), "use topics: data, give topics by hand, or ask a larger model")
        return {label: wanted.items for label, wanted in lists.items()}

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> dict[str, tuple[str, ...]]:
        """``count`` attributes in which the texts can differ, each with ``values`` values; the same for every label.

        Raises:
            ConfigError: a list stays short, naming it and how many were found.
            EndpointError: the endpoint failed; the ledger keeps all answers.
        """
        remedy = "give dimensions by hand, or ask a larger model"
        every = [text for own in texts.values() for text in own]
        names = WantedList(listed="dimensions", texts=every, count=count, barred=list(texts))
        self._fill([names], remedy)
        lists = {name: WantedList(listed="values", about=name, texts=every, count=values) for name in names.items}
        self._fill(list(lists.values()), remedy)
        return {name: wanted.items for name, wanted in lists.items()}

    def _fill(self, lists: Sequence[WantedList], remedy: str) -> None:
        """Ask for all lists together, until each is long enough or given up; none waits for another."""

        def wanted(find: Find) -> list[Request]:
            return [request for one in lists if (request := self._next_request(one, find)) is not None]

        answer_all(self.llm, self.ledger, wanted)
        for one in lists:
            if len(one.found) < one.count:
                raise ConfigError(
                    f"the LLM was asked for {one.count} {one.title} and named {len(one.found)} in "
                    f"{one.attempts} answers{one.trouble}; {remedy}"
                )

    def _next_request(self, one: WantedList, find: Find) -> Request | None:
        """Add the answers to a list, and return its next request; None if it is complete or given up."""
        while len(one.found) < one.count and one.in_vain < ATTEMPTS:
            request = one.ask(self.llm.endpoint, self.seed, self.describe)
            if (outcome := find(request)) is None:
                return request
            one.take(outcome)
        return None


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
        if split_tokens(plain) and not intro and len(plain.split()) <= LONGEST_ITEM:
            items.setdefault(plain.casefold(), plain)
    return tuple(items.values())


def _plain(line: str) -> str:
    return line.replace("**", "").strip().strip("\"'`“”").rstrip(".:;,").strip()
