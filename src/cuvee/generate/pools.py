"""Pools: the rows of each level of a dial, asked for once and composed many times."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError
from cuvee.generate.acceptance import Agrees, Judge, Nearest, Refuse
from cuvee.generate.calls import Endpoint, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.composition import Making, Part, Pool, compose_pool
from cuvee.generate.dials.protocol import Dial, Slot, wanted_slots
from cuvee.generate.filling import Filling
from cuvee.generate.ledger import Ledger
from cuvee.generate.masking import LOCAL
from cuvee.generate.near_copies import check_threshold
from cuvee.generate.opened import OpenClient, OpenedLLM
from cuvee.generate.prompts import PromptWriter
from cuvee.generate.rounds import Progress, Rounds
from cuvee.generate.strata import Kind, choose_kind, find_strata
from cuvee.generate.templates import PromptSet
from cuvee.generate.wordings import Wordings
from cuvee.records import Level
from cuvee.registry import nearest_name

__all__ = ["Pool", "generate_corpus", "generate_pools"]


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
    refuse: Refuse | None = None,
    near_duplicate: float | None = None,
    agrees: Agrees | None = None,
    kind: Kind | None = None,
    sources: Sequence[str] | None = None,
    prompts: PromptSet | None = None,
    keep_truncated: bool = False,
    attempts: int = 6,
    progress: Progress | None = None,
    open_client: OpenClient = LLMClient,
) -> tuple[Pool, ...]:
    """Generate the pools of several levels of a dial, one pool a level, from the least diverse.

    What is written follows the task of the training rows: a text for a label (classification), a query for a passage
    (retrieval), a question with its answer over a context, an instruction with its response, or a story (generation).
    Dials deal rows to labels, to passages or contexts, or, where nothing is given, to the one stratum ``any``.

    All levels' slots are asked for together, each once; rejected ones are asked for again, up to ``attempts`` answers.
    What is accepted depends on the answers alone, so with a deterministic endpoint the pools are the same
    bytes however often a run is stopped and started again, and adding levels or blocks changes no row of the others.
    Rows are unique within a block; blocks are independent draws, so a row may occur in two of them.
    A slot whose request fails for good gets no row and is counted; ``ledger.forget_failures()`` has it asked for again.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        dial: what is varied.
        levels: names of the dial's levels; None is all.
        blocks: numbers of the generation draws.
        rows_per_label: rows of each label, passage or context in a block; of all where there are none.
        endpoint: the LLM.
        ledger: its answers so far; new ones are added.
        sampling: of every request; a dial may set the temperature. Pairs are given the tokens that the longest of the
            training rows needs, if max_tokens is less.
        describe: what the texts are, in the plural, for the prompts.
        seed: of seed examples and requests.
        nearest: for a paraphrase's acceptance; None skips that test, and the note says so.
        refuse: says of texts why they may not become rows (they leak held-out data, say); None refuses nothing.
        near_duplicate: Jaccard similarity of the texts' runs of five characters, 0.5 to 1, from which a row counts
            as nearly the same as a training row, or as one before it in its batch (a paraphrase: as its source, too);
            None allows all but copies.
        agrees: says of texts with their labels which of them have it; None checks nothing.
        kind: of writing; None is the one that fits the task: ``label``, ``query``, and ``question`` where rows have
            contexts, else ``instruction``.
        sources: passages or contexts to write about; None is those of the training rows.
        prompts: the wording (:func:`~cuvee.generate.templates.load_prompts`); None is the built-in one.
        keep_truncated: take answers that ran into max_tokens, without their last, broken word.
        attempts: answers a slot may be given.
        progress: called with (rows so far, rows wanted).
        open_client: what asks the endpoint: over HTTP, or a model in this process.

    Raises:
        ConfigError: an unknown level, a dial that does not fit labels and rows, a kind that does not fit the task, no
            passages or contexts for a kind that needs them, labels to check where there are none, or a draft model for
            an LLM in this process, which has one model.
        EndpointError: the endpoint failed; the ledger keeps all answers.
        ValueError: blocks, rows_per_label, attempts or near_duplicate out of range.
        GenerationError: a level has no row at all for some label and block.
    """
    _check_numbers(blocks, rows_per_label, attempts)
    chosen = _choose_levels(dial, levels)
    if near_duplicate is not None:
        check_threshold(near_duplicate)
    kind = choose_kind(train, kind, sources)
    if agrees is not None and kind != "label":
        raise ConfigError(f"agrees checks labels, and rows of the kind {kind!r} have none; leave it out")
    strata = find_strata(train, kind, sources)
    dial.check(list(strata), rows_per_label)
    names = [level.name for level in chosen]
    batches = dial.batches(list(strata), blocks=blocks, rows_per_label=rows_per_label, levels=names)
    wanted = wanted_slots(batches)
    if endpoint.identity.startswith(LOCAL) and any(slot.draft and slot.draft.model for slot in wanted.values()):
        raise ConfigError(f"draft_model of dial {dial.name!r} needs an endpoint that serves it; this LLM has one model")
    writer = PromptWriter(
        train, describe=describe, api=endpoint.api, sampling=sampling, seed=seed, kind=kind, strata=strata,
        prompts=prompts,
    )  # fmt: skip
    least_words = min(2, *(len(normalise_text(text).split()) for text in train.texts))

    def make_judge(slots: Sequence[Slot]) -> Judge:
        return Judge(
            slots,
            train=train,
            writer=writer,
            nearest=nearest,
            refuse=refuse,
            near_duplicate=near_duplicate,
            agrees=agrees,
            keep_truncated=keep_truncated,
            attempts=attempts,
            least_words=least_words,
        )

    fillings = [Filling(batch.slots, make_judge) for batch in batches]
    rounds = Rounds(
        OpenedLLM(endpoint=endpoint, open_client=open_client),
        ledger,
        total=len(wanted),
        progress=progress,
    )
    rounds.fill(fillings)
    making = Making(
        train=train,
        rounds=rounds,
        model=endpoint.model,
        wordings=Wordings(writer),
        kind=kind,
        each=kind == "label" or len(strata) == 1,
        tested=nearest is not None,
    )
    return tuple(
        compose_pool(
            level,
            [Part(slots=dial.compose(level.name, b), filling=f) for b, f in zip(batches, fillings, strict=True)],
            making,
        )
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
    refuse: Refuse | None = None,
    near_duplicate: float | None = None,
    agrees: Agrees | None = None,
    kind: Kind | None = None,
    sources: Sequence[str] | None = None,
    prompts: PromptSet | None = None,
    keep_truncated: bool = False,
    attempts: int = 6,
    progress: Progress | None = None,
    open_client: OpenClient = LLMClient,
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
            refuse=refuse,
            near_duplicate=near_duplicate,
            agrees=agrees,
            kind=kind,
            sources=sources,
            prompts=prompts,
            keep_truncated=keep_truncated,
            attempts=attempts,
            progress=progress,
            open_client=open_client,
        )
    return pools[0]


def _check_numbers(blocks: Sequence[int], rows_per_label: int, attempts: int) -> None:
    if not blocks or len(set(blocks)) < len(blocks) or min(blocks) < 0:
        raise ValueError(f"blocks {blocks!r}; give at least one, each once, 0 or more")
    if rows_per_label < 1:
        raise ValueError(f"rows_per_label {rows_per_label!r}; must be 1 or more")
    if attempts < 1:
        raise ValueError(f"attempts {attempts!r}; must be 1 or more")


def _choose_levels(dial: Dial, names: Sequence[str] | None) -> tuple[Level, ...]:
    known = {level.name: level for level in dial.levels}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"dial {dial.name!r} has no level {name!r}; {nearest_name(name, known)}")
    return tuple(level for level in dial.levels if names is None or level.name in names)
