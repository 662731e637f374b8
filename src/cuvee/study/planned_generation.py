"""How long a study's LLM takes to write: timed where it is embedded, reckoned where it is an endpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from cuvee.config import (
    DialConfig,
    EmbeddedDraft,
    EmbeddedGenerator,
    EndpointDraft,
    FileGenerator,
    TransformersDraft,
)
from cuvee.config.generators import LocalOrRemote
from cuvee.errors import CuveeError, GenerationError
from cuvee.generate import Answer, Dial, Endpoint, Ledger, OpenedLLM, Request, generate_pools
from cuvee.generate.failures import Outcome
from cuvee.generate.opened import Client
from cuvee.generate.pacing import MOST_AT_ONCE
from cuvee.records import Usage
from cuvee.study.generation import ATTEMPTS
from cuvee.study.generators import find_sampling, is_drafting, language_model, open_drafter, open_llm
from cuvee.study.lists import needs_lists
from cuvee.study.planned_costs import SpendingPlan
from cuvee.study.setup import Study
from cuvee.study.writing import commission

LONGEST_S = 20.0
"""Of asking the embedded LLM for rows of the first dial; starting it comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationTime:
    """Seconds of generating all pools, of the confirmation too.

    Attributes:
        seconds: estimated; None where nothing is known of the LLM's speed.
        at_least: what the limits of an endpoint take; 0 without limits.
        usable: fraction of the timed answers that may become rows; None where none was timed.
        notes: what the numbers rest on.
    """

    seconds: float | None
    at_least: float = 0.0
    usable: float | None = None
    notes: tuple[str, ...] = ()


def time_generation(
    study: Study, made: Sequence[tuple[DialConfig, Dial]], spending: SpendingPlan, *, latency: float | None
) -> GenerationTime:
    """The time that the LLM of rows and the LLM of drafts take, one after the other.

    An embedded LLM of rows is started and asked, and so are drafts that another embedded one writes. To an endpoint
    nothing is sent.

    Args:
        study: prepared.
        made: its dials.
        spending: what is asked.
        latency: seconds that a request to an endpoint, or to a model of transformers, is assumed to take.
    """
    generator = study.config.generator
    if isinstance(generator, FileGenerator):
        return GenerationTime(seconds=0.0)
    is_local = generator.draft is None or isinstance(generator.draft, EmbeddedDraft)
    if isinstance(generator, EmbeddedGenerator):
        rows = _time_embedded(study, made, spending, is_local=is_local)
        if is_local:
            return rows
    else:
        rows = _reckon(generator, "generator", spending.rows, latency)
    if generator.draft is None:
        return rows
    drafts = _reckon(generator.draft, "generator.draft", spending.drafts, latency)
    known = rows.seconds is not None and drafts.seconds is not None
    return GenerationTime(
        seconds=(rows.seconds or 0.0) + (drafts.seconds or 0.0) if known else None,
        at_least=rows.at_least + drafts.at_least,
        usable=rows.usable,
        notes=tuple(dict.fromkeys([*rows.notes, *drafts.notes])),
    )


# --- what is not asked ---
def _reckon(part: LocalOrRemote, where: str, usage: Usage, latency: float | None) -> GenerationTime:
    if isinstance(part, EmbeddedDraft):
        return GenerationTime(
            seconds=None, notes=(f"{where}: the time of its {usage.requests:,} requests is not known",)
        )
    least, limits = _find_limit(part, usage)
    notes = [f"{where}: {limits} alone take {least:,.0f} s"] if limits else []
    if latency is None:
        notes.append(f"time of generating is not known ({where}): give the seconds that a request takes as --latency")
        return GenerationTime(seconds=None, at_least=least, notes=tuple(notes))
    at_once = min(_at_once(part), max(1, usage.requests))
    notes.append(f"{where}: {latency:g} s a request are assumed, {at_once} at once")
    return GenerationTime(
        seconds=max(least, math.ceil(usage.requests / at_once) * latency), at_least=least, notes=tuple(notes)
    )


def _find_limit(part: EndpointDraft | TransformersDraft, usage: Usage) -> tuple[float, str]:
    """Seconds that the limits a minute take at least, and which of them do; 0 without limits."""
    if isinstance(part, TransformersDraft):
        return 0.0, ""
    tokens = usage.prompt_tokens + usage.completion_tokens
    found = [
        (60 * asked / limit, f"{limit:g} {name} a minute")
        for name, asked, limit in (
            ("requests", usage.requests, part.requests_per_minute),
            ("tokens", tokens, part.tokens_per_minute),
        )
        if limit is not None
    ]
    return max(found, default=(0.0, ""))


def _at_once(part: EndpointDraft | TransformersDraft) -> int:
    """Requests under way at once; of an endpoint that adapts, the most."""
    if isinstance(part, TransformersDraft):
        return part.batch
    return len(part.urls) * (part.concurrency or MOST_AT_ONCE)


# --- what is ---
class _Enough(GenerationError):
    """Enough answers were timed."""


class _Stopwatch:
    """Counts answers from the first request on, and stops asking after a time."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._begun: float | None = None
        self._last = 0.0
        self._asked = self._at_once = 0
        self.answers = 0
        self.usable = 0

    @property
    def done(self) -> float:
        """Answers, and half of each that was under way: many are written side by side, and the first come late."""
        return self.answers + min(self._at_once, self._asked - self.answers) / 2

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return 0.0 if self._begun is None else self._last - self._begun

    def begin(self, requests: int, at_once: int) -> None:
        """Requests are about to be sent, so many of them at once."""
        self._asked, self._at_once = self._asked + requests, at_once
        if self._begun is None:
            self._begun = time.perf_counter()

    def follow(self, llm: OpenedLLM) -> OpenedLLM:
        """The same LLM, its answers counted."""

        @contextmanager
        def open_client(endpoint: Endpoint, ledger: Ledger) -> Iterator[Client]:
            with llm.open_client(endpoint, ledger) as client:
                yield _TimedClient(client, self, endpoint.concurrency or 1)

        return OpenedLLM(endpoint=llm.endpoint, open_client=open_client)

    def note_usable(self, done: int, total: int) -> None:
        """So many answers may become rows by now."""
        del total
        self.usable = done

    def note_answer(self) -> None:
        """An answer came.

        Raises:
            _Enough: the time is over.
        """
        self.answers += 1
        self._last = time.perf_counter()
        if self.seconds > self._longest:
            raise _Enough(f"{self.answers} answers were timed")


class _TimedClient:
    """A client whose answers are counted."""

    def __init__(self, client: Client, watch: _Stopwatch, at_once: int) -> None:
        self._client, self._watch, self._at_once = client, watch, at_once

    def answer_requests(
        self, requests: Sequence[Request], on_answer: Callable[[Request, Answer], None] | None = None
    ) -> Sequence[Outcome]:
        """See :class:`~cuvee.generate.opened.Client`."""

        def tell(request: Request, answer: Answer) -> None:
            if on_answer is not None:
                on_answer(request, answer)
            self._watch.note_answer()

        self._watch.begin(len(requests), self._at_once)
        return self._client.answer_requests(requests, tell)


def _time_embedded(
    study: Study, made: Sequence[tuple[DialConfig, Dial]], spending: SpendingPlan, *, is_local: bool
) -> GenerationTime:
    """From rows of the first dial that can be asked for here: all of its levels, in one draw.

    ``is_local``: whether drafts are written here too.
    """
    dial = next((dial for _, dial in made if is_local or not is_drafting(study, dial)), None)
    if dial is None:
        return _unknown("every dial drafts at generator.draft, to which nothing is sent")
    watch = _Stopwatch(LONGEST_S)
    try:
        start = _ask(study, dial, watch)
    except CuveeError as exc:
        return _unknown(str(exc))
    if not watch.answers:
        return _unknown("the LLM gave no answer")
    # a draft and its refinement make one row, and are not always seen together
    usable = None if is_drafting(study, dial) else watch.usable / watch.answers
    wanted = spending.usage.requests if is_local else spending.rows.requests
    opened = len(made) + sum(needs_lists(settings) for settings, _ in made) + (study.config.draws.confirm > 0)
    took = f"generating: {watch.answers} answers for dial {dial.name} took {watch.seconds:.1f} s here"
    told = "" if usable is None else f", and {usable:.0%} of them may become rows; others are asked for again"
    return GenerationTime(
        seconds=opened * start + wanted * watch.seconds / watch.done / max(usable or 1.0, 1 / ATTEMPTS),
        usable=usable,
        notes=(f"{took}{told}; all dials are reckoned at that pace",),
    )


def _unknown(reason: str) -> GenerationTime:
    return GenerationTime(seconds=None, notes=(f"time of generating is not known: {reason}",))


def _ask(study: Study, dial: Dial, watch: _Stopwatch) -> float:
    """Ask for rows until the watch has enough; gives the seconds that starting the LLM took."""
    wanted, config = commission(study), study.config
    begun = time.perf_counter()
    with ExitStack() as stack:
        llm = watch.follow(stack.enter_context(open_llm(study)))
        drafter = stack.enter_context(open_drafter(study, dial))
        if drafter is not None:
            drafter = replace(drafter, llm=watch.follow(drafter.llm))
        start = time.perf_counter() - begun

        with suppress(GenerationError):  # enough, or a level without a usable row
            generate_pools(
                study.train,
                dial=dial,
                blocks=[0],
                rows_per_label=wanted.rows,
                endpoint=llm.endpoint,
                open_client=llm.open_client,
                drafter=drafter,
                ledger=stack.enter_context(Ledger()),
                sampling=find_sampling(language_model(study)),
                describe=config.describe,
                seed=config.seed,
                near_duplicate=config.writing.near_duplicate,
                kind=wanted.kind,
                sources=wanted.sources,
                prompts=wanted.prompts,
                attempts=ATTEMPTS,
                keep_truncated=language_model(study).truncated == "keep",
                progress=watch.note_usable,
            )
    return start
