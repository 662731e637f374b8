"""Pools: the rows of each level of a dial, asked for once and composed many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError, GenerationError
from cuvee.fingerprint import hash_texts
from cuvee.generate.acceptance import Judge, Nearest, Row
from cuvee.generate.calls import Answer, Endpoint, Request, Sampling, request_key
from cuvee.generate.client import LLMClient
from cuvee.generate.dials.protocol import Batch, Dial, Slot, wanted_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.prompts import PromptWriter, Question
from cuvee.records import Level, Rejected, Usage
from cuvee.registry import nearest_name

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The synthetic corpus of one level.

    ``rejected`` holds every answer to one of its slots that became no row, ``short`` how many rows are
    missing, ``usage`` what its rows cost (levels share rows, so the sum over levels counts some twice; the
    ledger has the total), ``note`` what else a reader of the pool should know.
    """

    level: Level
    corpus: Corpus
    rejected: tuple[Rejected, ...]
    usage: Usage
    note: str
    short: int

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(r.reason for r in self.rejected).most_common())
        lines = [f"{self.level.key}: {len(self.corpus)} rows, {self.short} short; rejected: {reasons or 'none'}"]
        return "\n".join([*lines, self.note] if self.note else lines)


def generate_pools(
    train: Corpus,
    *,
    dial: Dial,
    levels: Sequence[str] | None = None,
    blocks: Sequence[int],
    rows_per_label: int,
    endpoint: Endpoint,
    ledger: Ledger,
    sampling: Sampling,
    describe: str = "examples",
    seed: int,
    nearest: Nearest | None = None,
    attempts: int = 6,
    progress: Progress | None = None,
) -> tuple[Pool, ...]:
    """Generate the pools of several levels of a dial, one pool a level, from the least diverse.

    All levels' slots are asked for together, each once; rejected ones are asked for again, up to ``attempts`` answers.
    What is accepted depends on the answers alone, so with a deterministic endpoint the pools are the same
    bytes however often a run is stopped and started again, and adding levels or blocks changes no row of the others.
    Rows are unique within a block; blocks are independent draws, so a row may occur in two of them.

    Args:
        train: real training rows: the labels, and the seed examples.
        dial: what is varied.
        levels: names of the dial's levels; None is all.
        blocks: numbers of the generation draws.
        rows_per_label: rows of each label in a block.
        endpoint: the LLM.
        ledger: its answers so far; new ones are added.
        sampling: of every request; a dial may set the temperature.
        describe: what the texts are, in the plural, for the prompts.
        seed: of seed examples and requests.
        nearest: for a paraphrase's acceptance; None skips that test, and the note says so.
        attempts: answers a slot may be given.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError: an unknown level, or a dial that does not fit labels and rows.
        EndpointError: the endpoint failed; the ledger keeps all answers.
        GenerationError: a level has no row at all for some label and block.
    """
    chosen = _choose_levels(dial, levels)
    dial.check(train.labels, rows_per_label)
    names = [level.name for level in chosen]
    batches = dial.batches(train.labels, blocks=blocks, rows_per_label=rows_per_label, levels=names)
    writer = PromptWriter(train, describe=describe, api=endpoint.api, sampling=sampling, seed=seed)
    least_words = min(2, *(len(normalise_text(text).split()) for text in train.texts))
    judges = [
        Judge(
            batch.slots, train=train, writer=writer, nearest=nearest, attempts=attempts, least_words=least_words
        )
        for batch in batches
    ]
    asking = _Asking(endpoint, ledger, total=len(wanted_slots(batches)), progress=progress)
    asking.fill(judges)
    return tuple(
        _compose(level, dial, batches, judges, asking, train=train, generator=endpoint.model, tested=nearest is not None)
        for level in chosen
    )


def generate_corpus(
    train: Corpus,
    *,
    dial: Dial,
    level: str,
    blocks: Sequence[int] = (0,),
    rows_per_label: int,
    endpoint: Endpoint,
    ledger: Ledger | None = None,
    sampling: Sampling | None = None,
    describe: str = "examples",
    seed: int = 0,
    nearest: Nearest | None = None,
    attempts: int = 6,
    progress: Progress | None = None,
) -> Pool:
    """Generate the pool of one level; see :func:`generate_pools`. Without a ledger nothing is kept."""
    with Ledger() as memory:
        pools = generate_pools(
            train,
            dial=dial,
            levels=[level],
            blocks=blocks,
            rows_per_label=rows_per_label,
            endpoint=endpoint,
            ledger=ledger if ledger is not None else memory,
            sampling=sampling or Sampling(),
            describe=describe,
            seed=seed,
            nearest=nearest,
            attempts=attempts,
            progress=progress,
        )
    return pools[0]


def _choose_levels(dial: Dial, names: Sequence[str] | None) -> tuple[Level, ...]:
    known = {level.name: level for level in dial.levels}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"dial {dial.name!r} has no level {name!r}; {nearest_name(name, known)}")
    return tuple(level for level in dial.levels if names is None or level.name in names)


class _Asking:
    """Asks the judges' questions, each distinct one once, until all are settled; counts what was sent."""

    def __init__(self, endpoint: Endpoint, ledger: Ledger, *, total: int, progress: Progress | None) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._total = total
        self._progress = progress
        self._shown = 0
        self.usage: dict[Request, Usage] = {}

    def fill(self, judges: Sequence[Judge]) -> None:
        answers: dict[Request, Answer] = {}
        with LLMClient(self._endpoint, self._ledger) as client:
            while any(asked := [judge.questions() for judge in judges]):
                fresh = self._fresh(judges, asked, answers)
                # requests that share a prefix go one after the other, so that the endpoint can reuse it
                ordered = sorted(fresh, key=lambda r: (r.prompt or "", r.messages, r.sampling.temperature))
                known = {r for r in ordered if self._ledger.holds(request_key(self._endpoint, r))}
                done = len({key for judge in judges for key in judge.rows})
                self._show(done)
                usable = _Counter(fresh, done, self._show)
                for request, answer in zip(ordered, client.answer_requests(ordered, usable), strict=True):
                    answers[request] = answer
                    self.usage[request] = _spent(answer, replayed=request in known)
                for judge, questions in zip(judges, asked, strict=True):
                    judge.give({key: answers[question.request] for key, question in questions.items()})
        self._show(len({key for judge in judges for key in judge.rows}))
