"""Pools: the rows of each level of a dial, asked for once and composed many times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.generate.acceptance import AcceptanceFilter, AcceptanceRules
from cuvee.generate.calls import Endpoint, Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.composition import Making, Part, Pool, compose_pool
from cuvee.generate.dials.slots import Dial, Slot, chosen_slots, wanted_slots
from cuvee.generate.filling import Filling, Progress, Rounds
from cuvee.generate.ledger import Ledger
from cuvee.generate.masking import LOCAL
from cuvee.generate.prompts import PromptWriter, Wordings
from cuvee.generate.strata import Kind, Stratum, choose_kind, find_strata
from cuvee.generate.templates import PromptSet
from cuvee.records import Level
from cuvee.registry import nearest_name

__all__ = ["GenerationSpec", "Pool", "PoolMaker", "fill_pools", "generate_corpus", "generate_pools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """What is written for a dial, in how many draws, and what is accepted.

    What is written follows the task of the training rows: a text for a label (classification), a query for a passage
    (retrieval), a question with its answer over a context, an instruction with its response, or a story (generation).
    Dials deal rows to labels, to passages or contexts, or, where nothing is given, to the one stratum ``any``.

    Args:
        rows_per_label: rows of each label, passage or context in a block; of all where there are none.
        blocks: numbers of the generation draws.
        sampling: of every request; a dial may set the temperature. Pairs are given the tokens that the longest of the
            training rows needs, if max_tokens is less.
        describe: what the texts are, in the plural, for the prompts.
        seed: of seed examples and requests.
        kind: of writing; None is the one that fits the task: ``label``, ``query``, and ``question`` where rows have
            contexts, else ``instruction``.
        sources: passages or contexts to write about; None is those of the training rows.
        prompts: the wording (:func:`~cuvee.generate.templates.load_prompts`); None is the built-in one.
        rules: what is accepted.

    Raises:
        ValueError: blocks or rows_per_label out of range.
    """

    rows_per_label: int
    blocks: Sequence[int] = (0,)
    sampling: Sampling = field(default_factory=Sampling)
    describe: str = "examples"
    seed: int = 0
    kind: Kind | None = None
    sources: Sequence[str] | None = None
    prompts: PromptSet | None = None
    rules: AcceptanceRules = field(default_factory=AcceptanceRules)

    def __post_init__(self) -> None:
        blocks = self.blocks
        if not blocks or len(set(blocks)) < len(blocks) or min(blocks) < 0:
            raise ValueError(f"blocks {blocks!r}; give at least one, each once, 0 or more")
        if self.rows_per_label < 1:
            raise ValueError(f"rows_per_label {self.rows_per_label!r}; must be 1 or more")

    def strata(self, train: Corpus) -> Mapping[str, Stratum]:
        """What a dial deals rows to, by name.

        Raises:
            ConfigError: the kind does not fit the task, or there is nothing to write about.
        """
        return find_strata(train, choose_kind(train, self.kind, self.sources), self.sources)

    def slots(self, dial: Dial, strata: Collection[str], levels: Sequence[str]) -> Mapping[str, Slot]:
        """What these levels of a dial ask for, by key."""
        return wanted_slots(dial, list(strata), blocks=self.blocks, rows_per_label=self.rows_per_label, levels=levels)


class PoolMaker:
    """The pools of several levels of a dial: prepared, then filled (with those of other dials), then composed.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        spec: what is written.
        dial: what is varied.
        endpoint: of the LLM that writes.
        levels: names of the dial's levels; None is all.

    Raises:
        ConfigError: an unknown level, a dial that does not fit labels and rows, a kind that does not fit the task, no
            passages or contexts for a kind that needs them, labels to check where there are none, or a draft model for
            an LLM in this process, which has one model.
    """

    def __init__(
        self, train: Corpus, spec: GenerationSpec, dial: Dial, endpoint: Endpoint, levels: Sequence[str] | None = None
    ) -> None:
        self._dial, self._levels = dial, _choose_levels(dial, levels)
        kind = choose_kind(train, spec.kind, spec.sources)
        if spec.rules.agrees is not None and kind != "label":
            raise ConfigError(f"agrees checks labels, and rows of the kind {kind!r} have none; leave it out")
        strata = find_strata(train, kind, spec.sources)
        wanted = spec.slots(dial, strata, [level.name for level in self._levels])
        if endpoint.identity.startswith(LOCAL) and any(slot.draft and slot.draft.model for slot in wanted.values()):
            raise ConfigError(
                f"draft_model of dial {dial.name!r} needs an endpoint that serves it; this LLM has one model"
            )
        writer = PromptWriter(
            train, describe=spec.describe, api=endpoint.api, sampling=spec.sampling, seed=spec.seed, kind=kind,
            strata=strata, prompts=spec.prompts,
        )  # fmt: skip

        def make_filter(slots: Sequence[Slot]) -> AcceptanceFilter:
            return AcceptanceFilter(slots, train=train, writer=writer, rules=spec.rules)

        self.rows = len(wanted)
        self._parts = {
            level: [
                Part(slots=tuple(chosen_slots(slots)), filling=Filling(slots, make_filter, dial.name))
                for block in spec.blocks
                for slots in [dial.slots(level.name, list(strata), block, spec.rows_per_label)]
            ]
            for level in self._levels
        }
        self.fillings = [part.filling for parts in self._parts.values() for part in parts]
        self._making = Making(
            train=train,
            model=endpoint.model,
            wordings=Wordings(writer),
            kind=kind,
            each=kind == "label" or len(strata) == 1,
            tested=spec.rules.nearest is not None,
        )

    def compose(self, rounds: Rounds) -> tuple[Pool, ...]:
        """One pool a level, from the least diverse.

        Args:
            rounds: that filled what is wanted.

        Raises:
            GenerationError: a level has no row at all for some label and block.
        """
        return tuple(compose_pool(level, parts, self._making, rounds) for level, parts in self._parts.items())


def fill_pools(makers: Sequence[PoolMaker], llm: OpenedLLM, ledger: Ledger, progress: Progress | None = None) -> Rounds:
    """Ask for the rows of all these pools together; no dial waits for another.

    Raises:
        EndpointError: the endpoint failed; the ledger keeps all answers.
    """
    rounds = Rounds(llm, ledger, total=sum(maker.rows for maker in makers), progress=progress)
    rounds.fill([filling for maker in makers for filling in maker.fillings])
    return rounds


def generate_pools(
    train: Corpus,
    spec: GenerationSpec,
    dial: Dial,
    llm: OpenedLLM,
    ledger: Ledger,
    *,
    levels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Pool, ...]:
    """Generate the pools of several levels of a dial, one pool a level, from the least diverse.

    All levels' slots are asked for together, each once; rejected ones are asked for again, up to ``attempts`` answers.
    What is accepted depends on the answers alone, so with a deterministic endpoint the pools are the same
    bytes however often a run is stopped and started again, and adding levels or blocks changes no row of the others.
    Rows are unique within a block; blocks are independent draws, so a row may occur in two of them.
    A slot whose request fails for good gets no row and is counted; ``ledger.forget_failures()`` has it asked for again.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        spec: what is written.
        dial: what is varied.
        llm: what writes.
        ledger: its answers so far; new ones are added.
        levels: names of the dial's levels; None is all.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError: as :class:`PoolMaker`.
        EndpointError: the endpoint failed; the ledger keeps all answers.
        GenerationError: a level has no row at all for some label and block.
    """
    maker = PoolMaker(train, spec, dial, llm.endpoint, levels)
    return maker.compose(fill_pools([maker], llm, ledger, progress))


def generate_corpus(
    train: Corpus,
    *,
    dial: Dial,
    level: str,
    rows_per_label: int,
    endpoint: Endpoint | OpenedLLM,
    ledger: Ledger | None = None,
    sampling: Sampling | None = None,
    describe: str = "examples",
    seed: int = 0,
    kind: Kind | None = None,
    sources: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Generate the pool of one level; :func:`generate_pools` makes several and takes every setting.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        dial: what is varied.
        level: the name of one of its levels.
        rows_per_label: rows of each label, passage or context; of all where there are none.
        endpoint: what writes.
        ledger: its answers so far; None keeps nothing.
        sampling, describe, seed, kind, sources: see :class:`GenerationSpec`.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError, EndpointError, GenerationError, ValueError: as :func:`generate_pools`.
    """
    spec = GenerationSpec(
        rows_per_label=rows_per_label, sampling=sampling or Sampling(), describe=describe, seed=seed, kind=kind,
        sources=sources,
    )  # fmt: skip
    llm = endpoint if isinstance(endpoint, OpenedLLM) else OpenedLLM(endpoint=endpoint)
    with Ledger() as memory:
        (pool,) = generate_pools(
            train, spec, dial, llm, memory if ledger is None else ledger, levels=[level], progress=progress
        )
    return pool


def _choose_levels(dial: Dial, names: Sequence[str] | None) -> tuple[Level, ...]:
    known = {level.name: level for level in dial.levels}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"dial {dial.name!r} has no level {name!r}; {nearest_name(name, known)}")
    return tuple(level for level in dial.levels if names is None or level.name in names)
