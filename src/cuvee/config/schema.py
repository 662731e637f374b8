"""The schema of study.yaml, and of the rules that ``cuvee check`` holds files of rows to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler
from pydantic.functional_serializers import model_serializer
from pydantic.functional_validators import AfterValidator, BeforeValidator, model_validator

from cuvee.config import generators, sections
from cuvee.config.dials import BaseThenRefineConfig, CombinedConfig, DialConfig
from cuvee.config.sections import OWN, Located, Name, Section, know
from cuvee.corpus import Task
from cuvee.corpus.table import BlendForm
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.evaluate import ITEM_SCORES
from cuvee.generate.parsing import Kind
from cuvee.measure import METRICS
from cuvee.measure.findings import RULES
from cuvee.records import Regime
from cuvee.registry import nearest_name
from cuvee.report.card import CardFacts, Licences
from cuvee.train import TASKS, is_deterministic

DEFAULT_SHARES = (0.2, 0.5, 0.75)
FILE_AMOUNTS: tuple[sections.Amount, ...] = ("0.3x", "1x", "3x", "10x", "30x", "100x", "300x", "1000x", "all")


class EvaluateConfig(Section):
    """How trials are judged on held-out real rows."""

    score: str | None = None
    """what cells are compared by; null: accuracy, token_f1 or ndcg@10; or your own module:name"""
    judge: generators.EndpointGenerator | None = None
    """for score judge: the LLM that gives each answer a number from 1 to 10; temperature 0 by default"""
    rubric: Located | None = Field(None, description="for score judge: a text file that says what a good answer is")
    max_tokens: int = Field(64, ge=1, description="generation: of a completion that is written for evaluation")
    diversity: bool = Field(False, description="generation: measure the diversity of what each tuned model writes")
    passages: Located | None = Field(None, description="retrieval: file of more passages to find the right ones among")

    def _check(self) -> None:
        if (self.score == "judge") != (self.judge is not None):
            raise ValueError("score judge and judge, the LLM that judges, go together; give both")
        if self.judge is None:
            self.refuse(("rubric",), "is for score judge; leave it out")


class WritingConfig(Section):
    """What the LLM writes, with which prompts, and what of it is taken."""

    kind: Kind | None = None
    """null: label, query, or question where rows have a context, else conversation where most have several turns, else
    instruction, by the task"""
    prompts: Located | None = Field(None, description="folder of your own prompts; `cuvee prompts --out` copies ours")
    sources: Located | None = None
    """file of passages or contexts to write about; null: those of the training rows"""
    sources_text: str | None = Field(None, description="its column of passages or contexts; null: of a usual name")
    label_check: float | None = Field(None, gt=0, lt=1, description="least probability of a row's label; null: any")
    grounded: float | None = Field(None, gt=0, le=1)
    """least share of an answer's content words that stand in its context; null: any"""

    def _check(self) -> None:
        if self.sources_text is not None and self.sources is None:
            raise ValueError("sources_text names a column of the file sources, and there is none; give sources")


class DataConfig(Section):
    """The real data. Paths are relative to the file that names them."""

    real: Located = Field(description="CSV, TSV, JSONL (also .gz), Parquet, or a saved Hugging Face dataset")
    text: Name | None = Field(None, description="column of the input; recognised by its usual names when left out")
    label: Name | None = Field(None, description="column of the label")
    group: Name | None = Field(None, description="column whose equal values stay on one side of the split")
    context: Name | None = Field(None, description="column of what a text is about, for the task generation")
    test: Located | None = Field(None, description="a separate file for the locked test, with the same columns")
    validation: Located | None = Field(None, description="a separate file for validation, with the same columns")


class SplitConfig(Section):
    """How the real data is split before anything else."""

    test: int | float = Field(0.3, gt=0, description="locked test: rows, or a fraction below 1, without data.test")
    validation: int | float = Field(0.3, gt=0, description="rows, or a fraction below 1, without data.validation")
    near: float | None = Field(None, gt=0, le=1, description="cosine that keeps rows on one side; null: equal texts")
    rows_per_label: sections.Sizes = None
    """real training rows of each label, or a list such as [4, 16, all], each within the next; all and null keep all
    that remain"""
    crossfit: int | None = Field(None, ge=2)
    """folds, in place of a locked test, where real rows are too few for one: every row is held out in one of them;
    validation is then cut from the rows outside the fold"""

    def _check(self) -> None:
        if self.crossfit is None:
            return
        if "test" in self.model_fields_set:
            raise ValueError(f"test is {self.test} and crossfit {self.crossfit}: every row is held out; leave one out")
        if "all" in sections.list_sizes(self.rows_per_label):
            raise ValueError(
                f"crossfit {self.crossfit!r} needs as many training rows in every fold: set rows_per_label to a number "
                f"or a list of numbers, not {self.rows_per_label!r}"
            )

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """With folds there is no test to write down, and reading one back would be refused."""
        written: dict[str, object] = write(self)
        if self.crossfit is not None:
            del written["test"]
        return written


class MixConfig(Section):
    """How much synthetic data, and the regime."""

    regime: Regime = Field("augment", description="augment: real rows fixed; replace: total rows fixed")
    amounts: sections.Amounts | None = None
    """synthetic rows for each real one, as 3x; a whole number is rows a label; all: every row; null: of files up to
    all that they hold"""
    shares: tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = Field(None, min_length=1)
    """the same as shares of all rows, in place of amounts: 0.75 is 3x"""
    shape_share: float = Field(0.75, gt=0, lt=1)
    """the share at which the shape over levels is tested, fixed beforehand: 0.75 is 3x"""
    format: BlendForm = "auto"
    """generation: columns of the blend that is written; auto: messages where rows are chats"""

    def _check(self) -> None:
        if self.shares is not None and self.amounts is not None:
            raise ValueError("amounts and shares say the same in two ways; give one of them")
        if self.regime == "replace" and self.amounts is not None:
            raise ValueError("amounts are rows beside all real ones, and regime replace keeps the total; give shares")
        if self.shares is not None and self.shape_share not in self.shares:
            raise ValueError(f"shape_share {self.shape_share} is not among shares {list(self.shares)}")

    def list_shares(self, rows_per_label: int, *, ready_made: bool) -> list[float | None]:
        """What is asked for beside so many real rows, as shares above 0, ascending; None, at the end, is every row.

        Args:
            rows_per_label: real rows of a label.
            ready_made: pools are files, so that more rows cost nothing; else the share of the shape test is asked too.
        """
        amounts, shares = self.amounts or (), self.shares or ()
        if amounts and not ready_made:
            shares = (self.shape_share,)
        elif not amounts and not shares and ready_made and self.regime == "augment":
            amounts = FILE_AMOUNTS
        elif not amounts and not shares:
            shares = DEFAULT_SHARES
        given = [sections.read_amount(amount, rows_per_label) for amount in amounts]
        given += [sections.amount_of(share) for share in shares]
        found = sorted({sections.share_of(amount) for amount in given if amount})
        return [*found, *([None] if None in given else [])]


def _read_auto(given: object) -> object:
    """``auto``, of all numbers or of one, as the number that is left out."""
    if isinstance(given, Mapping):
        return {key: value for key, value in given.items() if value != "auto"}
    return {} if given == "auto" else given


def _check_time(given: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?[smh]", given) or not float(given[:-1]):
        raise ValueError(f"time is {given!r}; give seconds, minutes or hours as 90s, 10m or 2h")
    return given


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class DrawsConfig(Section):
    """How many draws of each random stream; what is auto, or left out, follows from the time of the first trials."""

    time: Annotated[str, AfterValidator(_check_time)] = "10m"
    """for the trials of the grid, which decides what is auto: 90s, 10m, 2h"""
    generation: int | None = Field(None, ge=1)
    """of the recipe: generations (auto: 5), or disjoint blocks of a file (auto: 4 to 12, as time and rows allow)"""
    sampling: int | None = Field(None, ge=1)
    """random subsamples of a pool (auto: 4 to 24); choices of rows from a generation (auto: 1)"""
    real: int | None = Field(None, ge=1)
    """choices of real rows, where files are pools and at least twice split.rows_per_label are at hand (auto: another
    one for each subsample; 1 elsewhere)"""
    training: int | None = Field(None, ge=1)
    """training seeds. Auto: 3, and 1 where training again changes nothing"""
    confirm: int | None = Field(None, ge=0)
    """most fresh draws for confirming the winner on the locked test, of generation or of subsamples: it is read after
    a third, two thirds and all of them, until the winner is settled. Auto: 4 to 12"""

    def _check(self) -> None:
        if None not in (self.generation, self.sampling, self.confirm):
            self.refuse(("time",), "has no effect where generation, sampling and confirm are numbers; leave it out")

    @property
    def seconds(self) -> float:
        """The time in seconds."""
        return float(self.time[:-1]) * _SECONDS[self.time[-1]]


_Draws = Annotated[DrawsConfig, BeforeValidator(_read_auto, json_schema_input_type=DrawsConfig | Literal["auto"])]


class AdviceConfig(Section):
    """What counts as a difference."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    delta: float = Field(0.01, gt=0, lt=0.5, description="the smallest difference in accuracy that matters")


class CardConfig(Section):
    """What the dataset card of the recommended blend says of licences and languages."""

    licence: str = Field("other", description="of the blend, as the hub names it: cc-by-4.0, apache-2.0, other")
    licence_name: str = Field("unstated", description="where licence is other")
    real_licence: str = Field("", description="terms of the real rows, in words")
    synthetic_licence: str = Field("", description="terms of the synthetic rows, in words")
    languages: tuple[str, ...] = Field((), description="ISO 639 codes of the texts: en")

    def _check(self) -> None:
        CardFacts(name="", version="", languages=self.languages, licences=self.licences())  # which it refuses

    def licences(self) -> Licences:
        """As the card takes them.

        Raises:
            ValueError: the licence is none that the hub could know.
        """
        return Licences(
            blend=self.licence, name=self.licence_name, real=self.real_licence, synthetic=self.synthetic_licence
        )


# Keys that have a meaning for one task alone.
_OF_TASK = {
    "classification": ("writing.label_check",),
    "generation": (
        *("data.context", "writing.grounded", "mix.format"),
        *("evaluate.judge", "evaluate.max_tokens", "evaluate.diversity"),
    ),
    "retrieval": ("evaluate.passages",),
}


class StudyConfig(Section):
    """A whole study. ``cuvee init DATA`` writes one with comments."""

    name: str = Field("study", pattern=r"^\.*[\w-][\w.-]*$", max_length=200, description="the run folder is runs/NAME")
    task: Task = "classification"
    describe: str = Field("examples", description="what one text is, in the plural, for prompts: news headlines")
    seed: int = Field(0, ge=0)
    data: DataConfig
    split: SplitConfig = SplitConfig()
    encoder: str = DEFAULT_ENCODER
    """minilm, hashing, or a sentence-transformers model; @bfloat16 after it"""
    generator: generators.Generator = generators.EmbeddedGenerator()
    writing: WritingConfig = WritingConfig()
    dials: tuple[DialConfig, ...] = ()
    pools: Annotated[tuple[generators.PoolFile, ...], BeforeValidator(generators.split_levels)] = ()
    filters: tuple[generators.FilterConfig, ...] = generators.DEFAULT_FILTERS
    """what is taken out of pools, in this order"""
    mix: MixConfig = MixConfig()
    draws: _Draws = DrawsConfig()
    train: sections.TrainConfig = sections.TrainConfig()
    train_winner: bool = Field(False, description="train the advised blend on all real rows at the end: RUN/model")
    search: sections.SearchConfig = sections.SearchConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    execute: sections.ExecuteConfig = sections.ExecuteConfig()
    track: sections.TrackConfig | None = Field(None, description="MLflow, for the finished study; null: nowhere")
    advice: AdviceConfig = AdviceConfig()
    card: CardConfig = CardConfig()

    @model_validator(mode="before")
    @classmethod
    def _choose_trainers(cls, given: object) -> object:
        """The task's own trainer, where none is named."""
        task = given.get("task", "classification") if isinstance(given, dict) else "classification"
        if not isinstance(given, dict) or task == "classification" or task not in list(TASKS):
            return given
        train = given.get("train", {})
        if not isinstance(train, dict):
            return given
        made = {"trainer": TASKS[task][0], **train}
        if isinstance(check := train.get("check"), dict):
            made["check"] = {"trainer": TASKS[task][0], **check}
        return {**given, "train": made}

    @property
    def ready_made(self) -> bool:
        """Whether pools are files."""
        return isinstance(self.generator, generators.FileGenerator)

    def _check(self) -> None:
        kind, valid = self.generator.kind, list(ITEM_SCORES[self.task])
        if self.ready_made:
            if not self.pools or self.dials:
                raise ValueError("generator.kind files needs a list under pools, and no dials")
            self.refuse(("writing",), "is for what an LLM writes; pools that are files have filters")
            generators.check_pools(self.pools, self.filters, self.task, self.data.context)
        elif not self.dials or self.pools:
            raise ValueError(f"generator.kind {kind} needs a list under dials, and no pools")
        else:
            self.refuse(("filters",), "go with pools that are files; what an LLM writes is judged as it comes")
            if (self.draws.real or 1) > 1:
                raise ValueError(f"draws.real is {self.draws.real}, but an LLM writes from one choice; leave it out")
        if self.draft_models and kind != "endpoint":
            raise ValueError(f"draft_model needs an endpoint, and generator.kind {kind} has one model; leave it out")
        for task, own in _OF_TASK.items():
            if task != self.task:
                self.refuse(own, f"is for the task {task}, this one is {self.task}; leave it out")
        score = valid[0] if self.evaluate.score is None else self.evaluate.score
        if score not in (*valid, "judge") and not (self.task == "generation" and re.match(OWN, score)):
            names = [*valid, "judge"] if self.task == "generation" else valid
            raise ValueError(f"evaluate.score is {score!r} for the task {self.task}; {nearest_name(score, names)}")
        if self.split.crossfit is not None:
            self._check_crossfit(self.split.crossfit)
        self._check_training()
        keys = [(p.dial, level) for p in self.pools for level in p.levels]
        if len(set(keys)) != len(keys):
            raise ValueError("two pools have the same dial and level; give each level one file")

    @property
    def draft_models(self) -> tuple[str, ...]:
        """Other models at the generator's endpoint that write drafts."""
        parts = [p for d in self.dials for p in ((d.first, d.second) if isinstance(d, CombinedConfig) else (d,))]
        found = [part.draft_model for part in parts if isinstance(part, BaseThenRefineConfig)]
        return tuple(dict.fromkeys(model for model in found if model is not None))

    def _check_training(self) -> None:
        every = product(self.train.trainers, self.train.losses)
        if (self.draws.training or 1) > 1 and all(is_deterministic(*each) for each in every):
            raise ValueError(
                f"draws.training is {self.draws.training}, and training {', '.join(self.train.trainers)} again changes "
                "nothing; leave it out"
            )
        if "equal-epochs" in (self.train.sensitivity or ()) and self.mix.regime == "replace":
            raise ValueError("train.sensitivity equal-epochs changes nothing with mix.regime replace; leave it out")
        shares = len(self.mix.list_shares(1, ready_made=self.ready_made))
        if self.search.kind == "adaptive" and self.search.budget <= 1 and self.search.budget * shares < 1 - 1e-9:
            raise ValueError(
                f"search.budget {self.search.budget:g} does not pay for the shape test; give at least {1 / shares:.3g}"
            )

    def _check_crossfit(self, folds: int) -> None:
        """Refuse what folds cannot be joined over, and what would have no effect."""
        refused = {
            "data.test (every row is held out in one of the folds)": self.data.test is not None,
            "search.kind adaptive (each fold would ask for other cells)": self.search.kind == "adaptive",
            "train.check": self.train.check is not None,
            "train.sensitivity": bool(self.train.sensitivity),
            "a dial with a target (each fold would settle on another level)": any(
                dial.target is not None for dial in self.dials
            ),
        }
        for what, is_given in refused.items():
            if is_given:
                raise ValueError(f"split.crossfit {folds} does not go with {what}; leave one of them out")
        if self.draws.confirm == 0:
            raise ValueError(f"split.crossfit {folds} has no effect with draws.confirm 0: set it to 1 or more")


class Limits(Section):
    """The range that a number must lie in."""

    min: float | None = None
    max: float | None = None

    def _check(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")


FindingId = Annotated[str, know([rule.id for rule in RULES], "finding")]


class CheckRules(Section):
    """Which findings and which numbers fail a file."""

    against: Located | None = Field(None, description="real rows: they say what is usual, and which labels there are")
    held_out: Located | None = Field(None, description="rows that none may repeat: those of validation and test")
    text: Name | None = None
    label: Name | None = None
    encoder: str = Field(DEFAULT_ENCODER, description="as in study.yaml")
    findings: Literal["all"] | tuple[FindingId, ...] = Field("all", description="ids of the findings that fail a file")
    limits: dict[Annotated[str, know(METRICS, "metric")], Limits] = Field({}, description="the range of a metric")
