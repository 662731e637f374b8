"""One-off questions: topics, subtopics, attributes and their values are asked for before rows are.

Lists nest as levels do: a request never depends on how many items are wanted, so a shorter list is the beginning
of a longer one, and asking for more goes on where the ledger ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from cuvee.corpus import normalise_text
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.calls import Answer, Endpoint, Failure, Outcome, Request, request_json, request_key
from cuvee.generate.client import LLMClient, OpenClient
from cuvee.generate.dials.contents import Branches
from cuvee.generate.dials.lists import ListPrompt, dimension_question, parse_list, topic_question, value_question
from cuvee.generate.ledger import Ledger

ITEMS_A_REQUEST = 8
"""Asked for at once, however many are wanted: few enough that a small model does not lose the thread."""
EXAMPLES_SHOWN = 4
ATTEMPTS = 4
"""Answers in a row that may bring nothing new before a list is given up."""


@dataclass(kw_only=True)
class _Wanted:
    """A list that is being asked for. ``ask`` makes the request from the items so far and the attempt."""

    name: str
    ask: Callable[[Sequence[str], int], Request]
    count: int
    never: frozenset[str]
    explained: bool = False
    found: list[str] = field(default_factory=list)
    attempts: int = 0
    in_vain: int = 0
    trouble: str = ""

    def take(self, outcome: Outcome) -> None:
        """Add the new items of an answer."""
        self.attempts += 1
        before = len(self.found)
        if isinstance(outcome, Failure):
            self.trouble = f" (the last request failed: {outcome.message or outcome.reason})"
        else:
            known = {normalise_text(item) for item in self.found} | self.never
            for item in _read(outcome, self.explained):
                if normalise_text(item) not in known:
                    known.add(normalise_text(item))
                    self.found.append(item)
        self.in_vain = 0 if len(self.found) > before else self.in_vain + 1

    @property
    def items(self) -> tuple[str, ...]:
        """As many as are wanted, in the order in which they were found."""
        return tuple(self.found[: self.count])


@dataclass(eq=False)
class ListAsker:
    """Asks an LLM for the lists that dials need; every answer is journalled, so that asking again sends nothing.

    Args:
        endpoint: the LLM.
        ledger: its answers so far; new ones are added.
        describe: what the texts are, in the plural, for the prompts.
        seed: of requests, and of the real texts that they show.
        open_client: what asks the endpoint.
    """

    endpoint: Endpoint
    ledger: Ledger
    _: KW_ONLY
    describe: str = "examples"
    seed: int = 0
    open_client: OpenClient = LLMClient

    def topics(self, texts: Mapping[str, Sequence[str]], degree: Sequence[int]) -> dict[str, Branches]:
        """Label -> its topics: ``degree[0]`` of them, each with ``degree[1]`` subtopics, and so on.

        With one number the topics are a list. A topic or subtopic is never the label, one of those above it, or one
        of the texts.

        Args:
            texts: label -> its real training texts, of which a few are shown.
            degree: branches, depth by depth.

        Raises:
            ConfigError: a list stays short, naming the label and how many were found.
            EndpointError: the endpoint failed; the ledger keeps all answers.
            ValueError: ``degree`` is empty or holds a number below 1.
        """
        if not degree or min(degree) < 1:
            raise ValueError(f"degree {degree!r}; give the branches of each depth, 1 or more")
        paths: list[tuple[str, ...]] = [()]
        found: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        parents = {label: paths for label in texts}
        for count in degree:
            asked = {
                (label, path): self._topic_list(label, texts[label], path, count)
                for label, open_paths in parents.items()
                for path in open_paths
            }
            self._fill(list(asked.values()), "use topics: data, give topics by hand, or ask a larger model")
            found |= {place: wanted.items for place, wanted in asked.items()}
            parents = {
                label: [(*path, topic) for path in open_paths for topic in found[label, path]]
                for label, open_paths in parents.items()
            }
        return {label: _grow(found, label, (), len(degree)) for label in texts}

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> dict[str, tuple[str, ...]]:
        """``count`` attributes in which the texts can differ, each with ``values`` values; the same for every label.

        Raises:
            ConfigError: a list stays short, naming it and how many were found.
            EndpointError: the endpoint failed; the ledger keeps all answers.
            ValueError: ``count`` or ``values`` is below 1.
        """
        if count < 1 or values < 1:
            raise ValueError(f"count {count!r} and values {values!r}; both must be 1 or more")
        every = [text for own in texts.values() for text in own]
        labels = frozenset(normalise_text(label) for label in texts)
        remedy = "give dimensions by hand, or ask a larger model"

        def ask_dimensions(avoid: Sequence[str], attempt: int) -> Request:
            return dimension_question(self._prompt(self._choose(every, "dimensions", attempt), avoid, attempt))

        names = _Wanted(name="attributes", ask=ask_dimensions, count=count, never=labels, explained=True)
        self._fill([names], remedy)
        lists = {name: self._value_list(name, every, values) for name in names.items}
        self._fill(list(lists.values()), remedy)
        return {name: wanted.items for name, wanted in lists.items()}

    def _topic_list(self, label: str, texts: Sequence[str], path: tuple[str, ...], count: int) -> _Wanted:
        def ask(avoid: Sequence[str], attempt: int) -> Request:
            shown = self._choose(texts, label, *path, attempt)
            return topic_question(label, self._prompt(shown, avoid, attempt), path)

        under = f" under {': '.join(path)!r}" if path else ""
        never = frozenset(map(normalise_text, (label, *path, *texts)))
        return _Wanted(name=f"topics of label {label!r}{under}", ask=ask, count=count, never=never)

    def _value_list(self, dimension: str, texts: Sequence[str], count: int) -> _Wanted:
        def ask(avoid: Sequence[str], attempt: int) -> Request:
            shown = self._choose(texts, "values", dimension, attempt)
            return value_question(dimension, self._prompt(shown, avoid, attempt))

        never = frozenset(map(normalise_text, (dimension, *texts)))
        return _Wanted(name=f"values of attribute {dimension!r}", ask=ask, count=count, never=never, explained=True)

    def _prompt(self, examples: Sequence[str], avoid: Sequence[str], attempt: int) -> ListPrompt:
        return ListPrompt(
            describe=self.describe,
            count=ITEMS_A_REQUEST,
            api=self.endpoint.api,
            examples=examples,
            avoid=avoid,
            seed=self.seed,
            attempt=attempt,
        )

    def _choose(self, texts: Sequence[str], *names: str | int) -> list[str]:
        rng = derive_rng(self.seed, "list-examples", *names)
        return [texts[i] for i in rng.permutation(len(texts))[:EXAMPLES_SHOWN]]

    def _fill(self, lists: Sequence[_Wanted], remedy: str) -> None:
        """Ask for all lists together, until each is long enough or given up; none waits for another."""
        failures = self.ledger.failures()
        outcomes: dict[Request, Outcome] = {}
        sent: set[Request] = set()

        def more(found: Mapping[Request, Outcome]) -> list[Request]:
            outcomes.update(found)
            wanted = [self._next_request(one, outcomes, failures) for one in lists]
            fresh = [request for request in dict.fromkeys(wanted) if request is not None and request not in sent]
            sent.update(fresh)
            return fresh

        with self.open_client(self.endpoint, self.ledger) as client:
            while first := more({}):
                outcomes.update(zip(first, client.answer_requests(first, more=more), strict=True))
                journalled = self.ledger.failures()
                for request, outcome in outcomes.items():
                    if isinstance(outcome, Failure) and (key := request_key(self.endpoint, request)) not in journalled:
                        self.ledger.record_failure(key, request_json(self.endpoint, request), outcome)
        for one in lists:
            if len(one.found) < one.count:
                raise ConfigError(
                    f"the LLM was asked for {one.count} {one.name} and named {len(one.found)} in "
                    f"{one.attempts} answers{one.trouble}; {remedy}"
                )

    def _next_request(
        self, one: _Wanted, outcomes: Mapping[Request, Outcome], failures: Mapping[str, Failure]
    ) -> Request | None:
        """Take in what came for a list, and say what to ask next; None where it is done with."""
        while len(one.found) < one.count and one.in_vain < ATTEMPTS:
            request = one.ask(one.found, one.attempts)
            outcome = outcomes.get(request) or failures.get(request_key(self.endpoint, request))
            if outcome is None:
                return request
            one.take(outcome)
        return None


def _read(answer: Answer, explained: bool) -> tuple[str, ...]:
    """The items of an answer; one that broke off loses its last line, which may be half an item."""
    whole, _, _ = answer.text.rpartition("\n") if answer.finish_reason == "length" else (answer.text, "", "")
    return parse_list(whole, explained=explained)


def _grow(
    found: Mapping[tuple[str, tuple[str, ...]], tuple[str, ...]], label: str, path: tuple[str, ...], depth: int
) -> Branches:
    topics = found[label, path]
    if depth == 1:
        return topics
    return {topic: _grow(found, label, (*path, topic), depth - 1) for topic in topics}
