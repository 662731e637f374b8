"""The sections of study.yaml for the generator of synthetic rows, and for pools that are files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, ValidationInfo, field_validator

from cuvee.config.sections import OWN, Located, Name, Section, know, place, tell_own
from cuvee.corpus import Task
from cuvee.errors import ConfigError
from cuvee.masking import name_secrets, spell_host, unset_variables
from cuvee.mix import OBJECTIVES
from cuvee.records import UNORDERED, Prices


class Writer(Section):
    """How an LLM draws words."""

    kind: str
    temperature: float = Field(0.8, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(24, ge=1, description="the longest answer, in tokens")
    truncated: Literal["reject", "keep"] = Field("reject", description="answers that ran into max_tokens")
    rows_per_request: int = Field(1, ge=1, le=50)
    """rows of a label, or queries of a passage, that one request asks for"""


class EmbeddedGenerator(Writer):
    """The embedded LLM: llama.cpp on loopback."""

    kind: Literal["embedded"] = "embedded"
    gguf: Located | None = Field(None, description="a GGUF file; SmolLM2-135M-Instruct when left out")
    slots: int | None = Field(None, ge=1, le=256, description="requests answered at once; 16 for label texts, else 8")
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores when left out")
    context: int | None = Field(None, ge=64, description="tokens of a slot; null: 512 for texts of a label, else 2048")


# Parameters of every request, which a server may refuse.
_Parameter = Literal["temperature", "top_p", "seed", "stop", "max_tokens"]
_SENT = {"model", "messages", "prompt", "response_format", *get_args(_Parameter)}
_HTTP = re.compile(r"https?://([^/?#]*@)?[^/?#@$]+([/?#][^@]*)?", flags=re.IGNORECASE)


def check_urls(urls: Sequence[object], key_name: str | None = None) -> list[str]:
    """The addresses of an endpoint and its replicas, without a slash at their ends.

    No message shows an address as it was given, for there may be a key in it.

    Args:
        urls: as they were given.
        key_name: the environment variable that holds the key.

    Raises:
        ValueError: one is no HTTP address or holds a secret; there is none, or one twice.
    """
    for number, url in enumerate(urls, start=1):
        safe = name_secrets(url, key_name) if isinstance(url, str) else ""
        if not _HTTP.fullmatch(safe):
            raise ValueError(f"address {number} of base_url is no HTTP address; give http://HOST/v1 or https://HOST/v1")
        if safe != url:
            raise ValueError(
                f"base_url holds a key or a query; export the value as a variable, and write '{safe}' in single quotes"
            )
    plain = [str(url).rstrip("/") for url in urls]
    if not plain or len(set(map(spell_host, plain))) < len(plain):
        raise ValueError(f"base_url has {len(plain)} addresses; give at least one address, and each once")
    return plain


def check_variables(urls: Sequence[str], key_name: str | None, where: str) -> str | None:
    """The key; what the addresses name is set in the environment too.

    Args:
        urls: with ``${NAME}`` in place of what is secret.
        key_name: the environment variable that holds the key; None is no key.
        where: before the name of the setting: a section and a dot, or an option's dashes.

    Raises:
        ConfigError: one is not set, or no header can hold the key.
    """
    key = os.environ.get(key_name, "").strip() if key_name else None
    missing = [("api_key_env", key_name)] if key_name and not key else []
    for setting, name in [*missing, *(("base_url", name) for name in unset_variables(urls))]:
        setting = setting.replace("_", "-") if where == "--" else setting
        raise ConfigError(f"{where}{setting}: the environment variable {name} is not set; export it")
    if key and not key.isprintable():
        raise ConfigError(
            f"the environment variable {key_name} holds a line break or another control character; export the key alone"
        )
    return key


class BudgetConfig(Section):
    """The most that may be spent on the endpoint for this run folder, in all runs together.

    A run stops before it would pass.
    """

    requests: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0, description="of prompts and answers together")
    cost: float | None = Field(None, ge=0, description="in the currency of prices")


class PricesConfig(Section):
    """What the endpoint charges for a million tokens."""

    prompt_per_million: float = Field(ge=0)
    completion_per_million: float = Field(ge=0)
    currency: str = "USD"


class EndpointGenerator(Writer):
    """Any OpenAI-compatible endpoint, or several replicas of one."""

    kind: Literal["endpoint"]
    base_url: str | tuple[str, ...]
    """for example http://localhost:8000/v1; or a list of such: replicas that serve the same model; ${NAME} is an
    environment variable, for a key in the address"""
    model: str
    api: Literal["chat", "completions"] = "chat"
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")
    concurrency: int | None = Field(32, ge=1)
    """most requests in flight at once, for each replica; null adapts, up to 256"""
    budget: BudgetConfig = BudgetConfig()
    prices: PricesConfig | None = Field(None, description="what the endpoint charges; a budget in money needs it")
    omit: tuple[_Parameter, ...] = ()
    """parameters that the endpoint refuses, left out of every request"""
    extra_body: dict[str, JsonValue] = Field({})
    """parameters of the endpoint's own, sent with every request: {enable_thinking: false}"""
    system: Literal["send", "merge"] = "send"
    """merge puts the system message at the head of the user's, for models without that role"""
    timeout_s: float = Field(120, gt=0, description="seconds for one request")
    give_up_s: float = Field(300, gt=0, description="seconds an outage is waited out before the run stops")
    max_tokens: int = Field(64, ge=1)
    min_p: float | None = Field(None, ge=0, le=1, description="sent only if set; no part of OpenAI's protocol")
    top_k: int | None = Field(None, ge=-1, description="sent only if set; no part of OpenAI's protocol")

    @property
    def urls(self) -> tuple[str, ...]:
        """The address of each replica, without a slash at its end."""
        given = (self.base_url,) if isinstance(self.base_url, str) else self.base_url
        return tuple(url.rstrip("/") for url in given)

    @field_validator("base_url", mode="before")
    @classmethod
    def _check_urls(cls, value: object) -> object:
        check_urls(value if isinstance(value, list | tuple) else [value])
        return value

    @field_validator("extra_body")
    @classmethod
    def _check_extra(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := _SENT & value.keys():
            raise ValueError(f"{min(taken)!r} is in every request already; take it out")
        return value

    def _check(self) -> None:
        check_urls(self.urls, self.api_key_env)
        if self.budget.cost is not None and self.prices is None:
            raise ValueError("a budget in money needs prices: give prompt_per_million and completion_per_million")


class TransformersGenerator(Writer):
    """A transformers model in this process, for models without a server."""

    kind: Literal["transformers"]
    model: str = Field(description="a folder, a .gguf file, smollm2, or NAME[@REVISION] on the Hugging Face hub")
    device: str = Field("auto", description="auto, cuda, cuda:N, mps or cpu")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: int = Field(16, ge=1, description="requests answered at once; halved when memory runs out")
    context: int = Field(2048, ge=64, description="tokens of prompt and answer together")
    api: Literal["chat", "completions"] = "completions"
    min_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)

    @field_validator("model")
    @classmethod
    def _place_model(cls, given: str, info: ValidationInfo) -> str:
        """A path if it begins like one, ends in .gguf, or is there; else a name on the hub."""
        model, path = given.removeprefix("hf:"), place(given.removeprefix("hf:"), info)
        is_path = model.startswith((".", "/", "~")) or model.endswith(".gguf") or Path(path).exists()
        return path if info.context is not None and is_path else given


class FileGenerator(Section):
    """No LLM: the pools are files that exist already, listed under ``pools``."""

    kind: Literal["files"]


# Settings that answers do not depend on.
SPEED = {"slots", "threads", "batch", "concurrency", "timeout_s", "give_up_s", "api_key_env", "budget", "prices"}
LanguageModel = EmbeddedGenerator | EndpointGenerator | TransformersGenerator
Generator = Annotated[LanguageModel | FileGenerator, Field(discriminator="kind")]


def find_prices(part: Generator) -> Prices | None:
    """What an LLM charges, if that is known."""
    prices = part.prices if isinstance(part, EndpointGenerator) else None
    return None if prices is None else Prices(**prices.model_dump())


class DedupeConfig(Section):
    """Rows that repeat another one, or a real training row; the first stays."""

    name: Literal["dedupe"]
    near: float | None = Field(None, gt=0, le=1, description="cosine from which rows are the same; null: equal text")
    against_real: bool = True


class DegenerateConfig(Section):
    """Text that is no usable example: empty, looping, broken, cut off."""

    name: Literal["degenerate"]
    reference: bool = Field(False, description="learn from the real rows what cut-off text and other languages are")
    prompts: Located | None = Field(None, description="text file of the prompts that rows were asked with: echoes go")


class LeakConfig(Section):
    """Rows that repeat validation or the locked test: exactly, by n-grams, or nearer than real rows are."""

    name: Literal["leak"]
    whole: bool = Field(True, description="also test the pool as a set: was it written from held-out rows?")


class AgreementConfig(Section):
    """Rows whose label a probe of the real training rows does not believe."""

    name: Literal["agreement"]
    threshold: float | None = Field(None, ge=0, le=1, description="least probability of the row's label")
    top: float | None = Field(None, gt=0, le=1, description="fraction of each label's rows that stays")

    def _check(self) -> None:
        if (self.threshold is None) == (self.top is None):
            raise ValueError("agreement takes a threshold or a top fraction; give exactly one of them")


class FewerPerClusterConfig(Section):
    """All but the first rows of each group (or cluster of near neighbours)."""

    name: Literal["fewer-per-cluster"]
    limit: int = Field(ge=1, description="rows of a cluster that stay")
    threshold: float | None = Field(None, gt=0, le=1, description="cosine that links rows; null: the group column")


class PairsConfig(Section):
    """Rows whose answer repeats what it answers, is over twice as long as the longest real one, or is not grounded."""

    name: Literal["pairs"]
    grounded: float | None = Field(None, gt=0, le=1)
    """least share of an answer's content words that stand in its context; null: any"""


class ReaderConfig(Section):
    """Rows whose prompt another LLM answers differently: a small reader, or for the round trip the one that wrote."""

    name: Literal["reader"]
    by: LanguageModel = Field(EmbeddedGenerator(), discriminator="kind")
    least: float = Field(0.3, gt=0, le=1, description="least token F1 of its answer with the row's own")


class JudgeConfig(Section):
    """Rows whose answer a judge, another LLM, gives too low a number."""

    name: Literal["judge"]
    by: LanguageModel = Field(discriminator="kind")
    least: float = Field(5, ge=1, le=10, description="least number, of 1 to 10")
    rubric: Located | None = Field(None, description="a text file that says what a good answer is; null: a general one")


class OwnFilterConfig(Section):
    """A function of your own, ``module:Name``: takes a corpus, gives for each row why it goes, or None."""

    name: str = Field(pattern=OWN)


_OfPairs = PairsConfig | ReaderConfig | JudgeConfig
_Filter = DedupeConfig | DegenerateConfig | LeakConfig | AgreementConfig | FewerPerClusterConfig | _OfPairs
FilterConfig = Annotated[
    Annotated[_Filter, Field(discriminator="name"), Tag("named")] | Annotated[OwnFilterConfig, Tag("own")],
    Discriminator(tell_own),
]
DEFAULT_FILTERS: tuple[FilterConfig, ...] = (
    DegenerateConfig(name="degenerate"), DedupeConfig(name="dedupe"), LeakConfig(name="leak"),
)  # fmt: skip


class SelectConfig(Section):
    """Levels that are chosen from one pool, with rows, labels and lengths held fixed."""

    metric: Annotated[str, know(OBJECTIVES, "metric")] = Field(
        "vendi", description=f"the diversity to set: {', '.join(OBJECTIVES)}"
    )
    levels: int = Field(5, ge=2, le=20, description="how many, from the least to the most diverse that there is")


TOGETHER = "together"  # the level of all pools without an order: their rows in one pool


# A value of a column, which YAML may read as a number.
Value = Annotated[Name, BeforeValidator(lambda given: str(given) if type(given) in (int, float) else given)]


class PoolFile(Section):
    """A ready-made pool: the synthetic rows of one level, or the rows from which levels are selected."""

    dial: Name = Field(description="what was varied, for example paraphrase; source: pools that have no order")
    level: Name | None = Field(None, description="which setting of it, from the least to the most diverse")
    select: SelectConfig | None = Field(None, description="instead of level: choose levels from this pool")
    path: Located
    where: dict[Name, Value | tuple[Value, ...]] = Field({})
    """only rows with this value, or one of these, in a column of the file"""
    text: Name | None = Field(None, description="column of the text, prompt or query")
    label: Name | None = Field(None, description="column of the label, completion or passage")
    context: Name | None = Field(None, description="column of what a text is about; null: data.context")
    source: Name | None = None
    """column naming the real row that each was written from, by its data.group or its text: rows written from
    validation or the locked test go"""
    group: Name | None = None
    """column naming the source row: its paraphrases stay in one draw; so do rows of one context or passage, without it
    too"""

    def _check(self) -> None:
        if (self.level is None) == (self.select is None):
            raise ValueError("a pool is one level, or levels are selected from it; give level or select")

    @property
    def wanted(self) -> dict[str, tuple[str, ...]]:
        """Column -> the values that its rows have there."""
        return {name: (given,) if isinstance(given, str) else given for name, given in self.where.items()}

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of its levels."""
        if self.select is None:
            return (self.level or "",)
        return tuple(str(number + 1) for number in range(self.select.levels))


def list_levels(pools: Sequence[PoolFile]) -> dict[tuple[str, str], tuple[PoolFile, ...]]:
    """(dial, level) -> the files that its rows come from, in order.

    Where several pools have no order, all of them together are one more level.
    """
    found = {(file.dial, level): (file,) for file in pools for level in file.levels}
    unordered = tuple(file for file in pools if file.dial == UNORDERED)
    return found | ({(UNORDERED, TOGETHER): unordered} if len(unordered) > 1 else {})


def split_levels(pools: object) -> object:
    """Pools as they were given, those with ``levels: {column: [value, ...]}`` as one pool a value."""
    if not isinstance(pools, list | tuple):
        return pools
    made: list[object] = []
    for pool in pools:
        if not isinstance(pool, dict) or "levels" not in pool:
            made.append(pool)
            continue
        levels = pool["levels"]
        if "level" in pool:
            raise ValueError("level and levels both name levels of one pool; give one of them")
        (values,) = levels.values() if isinstance(levels, dict) and len(levels) == 1 else (None,)
        if not isinstance(values, list) or not values:
            raise ValueError("levels names one column of the file and its values in order: {method: [a, b]}")
        rest, where, (column,) = {k: v for k, v in pool.items() if k != "levels"}, pool.get("where") or {}, levels
        made += [{**rest, "level": str(value), "where": {**where, column: str(value)}} for value in values]
    return made


def check_pools(pools: Sequence[PoolFile], filters: Sequence[FilterConfig], task: Task, context: str | None) -> None:
    """Refuse filters that let leaks through, and what has no meaning for the task.

    Args:
        pools, filters, task: of the study.
        context: the column of the real rows' contexts.

    Raises:
        ValueError: there is no filter ``leak``, one is listed twice, or a filter or column is for another task.
    """
    names = [each.name for each in filters]
    if "leak" not in names:
        raise ValueError("filters must hold leak: rows that repeat validation or test may not be trained on")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"filter {repeated!r} is listed twice; give it once")
    for each in filters:
        of = "classification" if each.name == "agreement" else "generation" if isinstance(each, _OfPairs) else task
        if of != task:
            raise ValueError(f"filter {each.name!r} is for the task {of}, this one is {task}; leave it out")
    if context is not None and any(isinstance(each, DedupeConfig) and each.near is not None for each in filters):
        raise ValueError("dedupe.near compares texts without their contexts; leave near out, to compare both")
    for number, pool in enumerate(pools):
        if pool.dial == UNORDERED and (pool.level is None or pool.level == TOGETHER):
            raise ValueError(f"pools.{number}: a pool of dial {UNORDERED} needs its own level, other than {TOGETHER!r}")
        if pool.context is not None and task != "generation":
            raise ValueError(f"pools.{number}.context is for the task generation, this one is {task}; leave it out")
