"""One-off questions: topics, attributes and their values are asked for before rows are.

Lists nest as levels do: a request never depends on how many items are wanted, so a shorter list is the beginning
of a longer one, and asking for more goes on where the ledger ends. Attributes: AttrPrompt, arXiv 2306.15895.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from cuvee.corpus import normalise_text, split_tokens
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.generate.calls import Endpoint, Failure, Outcome, Request, Sampling
from cuvee.generate.client import Find, OpenedLLM, answer_all
from cuvee.generate.dials.slots import ANY
from cuvee.generate.ledger import Ledger
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
SYSTEM = "You plan a varied data set. Answer with a numbered list alone, one item a line, one to three words each."

_ITEM = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])\s*")
_SPLIT = re.compile(r"\s*[,;]\s+")
_LEAD_IN = re.compile(r"^(?:sure|certainly|of course|here (?:is|are)|here's|topics?\b)", flags=re.IGNORECASE)
# Where a name ends and its explanation begins: ``Tone: formal or casual``.
_EXPLAINED = re.compile(r"\s*(?::|\s[-–—]\s|\()")


@dataclass(kw_only=True)
class WantedList:
    """A list that the LLM is asked for, with the items that it has named so far.

    ``names`` tell it apart from other lists of one seed; ``title`` is for messages. ``heading`` stands over the
    examples among ``texts``, and ``listed`` is what is asked for after the number of items: each in the completion
    and in the chat form. No item is one of ``never``.
    """

    title: str
    names: tuple[str, ...]
    heading: tuple[str, str]
    listed: tuple[str, str]
    texts: Sequence[str]
    count: int
    never: frozenset[str]
    found: list[str] = field(default_factory=list)
    attempts: int = 0
    in_vain: int = 0
    trouble: str = ""

    def ask(self, endpoint: Endpoint, seed: int) -> Request:
        """The next request; a completion goes on with the items that are known."""
        rng = derive_rng(seed, "list-examples", *(self.names if self.is_explained else self.names[1:]), self.attempts)
        texts = [self.texts[i] for i in rng.permutation(len(self.texts))[:EXAMPLES_SHOWN]]
        shown = "".join(f"- {' '.join(text.split()[:LONGEST_EXAMPLE])}\n" for text in texts)
        completes, named = endpoint.api == "completions", self.found[-MOST_NAMED:]
        heading, listed = (form[0 if completes else 1] for form in (self.heading, self.listed))
        above = f"{heading}:\n{shown}\n" if shown else ""
        drawn = derive_seed(seed, *self.names, self.attempts) & 0x7FFFFFFF
        sampling = Sampling(
            temperature=TEMPERATURE, max_tokens=ITEMS_A_REQUEST * TOKENS_AN_ITEM, stop=("\n\n",) if completes else ()
        )
        if completes:
            known = "".join(f"{number}. {name}\n" for number, name in enumerate(named, start=1))
            prompt = f"{above}{len(named) + ITEMS_A_REQUEST} {listed}:\n{known}{len(named) + 1}."
            return Request(prompt=prompt, sampling=sampling, seed=drawn, replicate=self.attempts)
        other = f" Other than: {', '.join(named)}." if named else ""
        messages = (("system", SYSTEM), ("user", f"{above}Name {ITEMS_A_REQUEST} {listed}.{other}"))
        return Request(messages=messages, sampling=sampling, seed=drawn, replicate=self.attempts)

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
        return self.names[0] != "topics"

    @property
    def items(self) -> tuple[str, ...]:
        """The wanted number of items, in the order in which they were found."""
        return tuple(self.found[: self.count])


def list_topics(describe: str, label: str, texts: Sequence[str], count: int) -> WantedList:
    """Topics of a label; the label ``any`` is none."""
    kind = "" if label == ANY else " ".join(label.replace("_", " ").split())
    of_kind, named = (f' of the kind "{kind}"', f"{kind} {describe}") if kind else ("", describe)
    return WantedList(
        title=f"topics of label {label!r}",
        names=("topics", label),
        heading=(f"Some {named}", f"These {describe} are{of_kind}" if kind else f"These are {describe}"),
        listed=(
            f"different topics of {named}, each in one to three words",
            f"different topics that {describe}{of_kind} can be about",
        ),
        texts=texts,
        count=count,
        never=frozenset(map(normalise_text, (label, *texts))),
    )


def list_dimensions(describe: str, texts: Mapping[str, Sequence[str]], count: int) -> WantedList:
    """Attributes in which texts differ."""
    return WantedList(
        title="attributes",
        names=("dimensions",),
        heading=(f"Some {describe}", f"These are {describe}"),
        listed=(
            f"different attributes in which {describe} differ, whatever they are about, each in one to three words",
            f"different attributes in which {describe} can differ from each other, whatever they are about "
            "(such as style, length, point of view). Names alone, without values",
        ),
        texts=[text for own in texts.values() for text in own],
        count=count,
        never=frozenset(map(normalise_text, texts)),
    )


def list_values(describe: str, dimension: str, texts: Sequence[str], count: int) -> WantedList:
    """Values of one attribute of texts."""
    return WantedList(
        title=f"values of attribute {dimension!r}",
        names=("values", dimension),
        heading=(f"Some {describe}", f"These are {describe}"),
        listed=(
            f'different values of the attribute "{dimension}" of {describe}, each in one to three words',
            f'different values that the attribute "{dimension}" of {describe} can have',
        ),
        texts=texts,
        count=count,
        never=frozenset(map(normalise_text, (dimension, *texts))),
    )


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
        lists = {label: list_topics(self.describe, label, own, count) for label, own in texts.items()}
        self._fill(list(lists.values()), "use topics: data, give topics by hand, or ask a larger model")
        return {label: wanted.items for label, wanted in lists.items()}

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> dict[str, tuple[str, ...]]:
        """``count`` attributes in which the texts can differ, each with ``values`` values; the same for every label.

        Raises:
            ConfigError: a list stays short, naming it and how many were found.
            EndpointError: the endpoint failed; the ledger keeps all answers.
        """
        remedy = "give dimensions by hand, or ask a larger model"
        names = list_dimensions(self.describe, texts, count)
        self._fill([names], remedy)
        lists = {name: list_values(self.describe, name, names.texts, values) for name in names.items}
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
            request = one.ask(self.llm.endpoint, self.seed)
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
