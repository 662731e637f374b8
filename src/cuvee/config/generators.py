"""The section of study.yaml that says who writes the synthetic rows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from cuvee.config.sections import Section
from cuvee.errors import ConfigError
from cuvee.generate.masking import name_secrets, spell_host, unset_variables


class EmbeddedGenerator(Section):
    """The embedded LLM: llama.cpp on loopback."""

    kind: Literal["embedded"] = "embedded"
    gguf: str | None = Field(None, description="a GGUF file; SmolLM2-135M-Instruct when left out")
    slots: int | None = Field(
        None, ge=1, le=256, description="requests answered at once; 16 for texts of a label, else 8"
    )
    temperature: float = Field(0.8, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(24, ge=1, description="the longest answer, in tokens")
    truncated: Literal["reject", "keep"] = Field("reject", description="answers that ran into max_tokens")
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores when left out")
    context: int | None = Field(
        None, ge=64, description="tokens of prompt and answer, a slot; 512 for texts of a label, else 2048"
    )


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
                "base_url holds a key or a query, which would be written to files; "
                f"export the value as an environment variable and write '{safe}', in single quotes"
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
        ConfigError: one is not set.
    """
    key = os.environ.get(key_name, "").strip() if key_name else None
    missing = [("api_key_env", key_name)] if key_name and not key else []
    for setting, name in [*missing, *(("base_url", name) for name in unset_variables(urls))]:
        setting = setting.replace("_", "-") if where == "--" else setting
        raise ConfigError(f"{where}{setting}: the environment variable {name} is not set; export it")
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


class EndpointGenerator(Section):
    """Any OpenAI-compatible endpoint, or several replicas of one."""

    kind: Literal["endpoint"]
    base_url: str | tuple[str, ...] = Field(
        description="for example http://localhost:8000/v1; or a list of such: replicas that serve the same model; "
        "${NAME} is an environment variable, for a key in the address"
    )
    model: str
    api: Literal["chat", "completions"] = "chat"
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")
    concurrency: int | None = Field(
        32, ge=1, description="most requests in flight at once, for each replica; null adapts, up to 256"
    )
    requests_per_minute: float | None = Field(None, gt=0, description="of all replicas together")
    tokens_per_minute: float | None = Field(None, gt=0, description="of prompts and answers, of all replicas together")
    budget: BudgetConfig = BudgetConfig()
    prices: PricesConfig | None = Field(None, description="what the endpoint charges; a budget in money needs it")
    omit: tuple[Literal["temperature", "top_p", "seed", "stop"], ...] = Field(
        (), description="parameters that the endpoint refuses, left out of every request"
    )
    timeout_s: float = Field(120, gt=0, description="seconds for one request")
    give_up_s: float = Field(300, gt=0, description="seconds an outage is waited out before the run stops")
    temperature: float = Field(0.8, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1, description="sent only if set; no part of OpenAI's protocol")
    top_k: int | None = Field(None, ge=-1, description="sent only if set; no part of OpenAI's protocol")
    max_tokens: int = Field(64, ge=1)
    truncated: Literal["reject", "keep"] = Field("reject", description="answers that ran into max_tokens")

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

    @model_validator(mode="after")
    def _check(self) -> EndpointGenerator:
        check_urls(self.urls, self.api_key_env)
        if self.budget.cost is not None and self.prices is None:
            raise ValueError("a budget in money needs prices: give prompt_per_million and completion_per_million")
        return self


class TransformersGenerator(Section):
    """A transformers model in this process, for models without a server."""

    kind: Literal["transformers"]
    model: str = Field(description="a folder, a .gguf file, smollm2, or NAME[@REVISION] on the Hugging Face hub")
    adapter: str | None = Field(None, description="folder of a PEFT adapter to merge into it")
    device: str = Field("auto", description="auto, cuda, cuda:N, mps or cpu")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: int = Field(16, ge=1, description="requests answered at once; halved when memory runs out")
    context: int = Field(2048, ge=64, description="tokens of prompt and answer together")
    api: Literal["chat", "completions"] = "completions"
    temperature: float = Field(0.8, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    max_tokens: int = Field(24, ge=1, description="the longest answer, in tokens")
    truncated: Literal["reject", "keep"] = Field("reject", description="answers that ran into max_tokens")


Part = TypeVar("Part", bound=Section)


def absolute_paths(generator: Part, folder: Path) -> Part:
    """The same with its relative paths of model files, folders and adapters taken from ``folder``.

    A model of transformers is a path if it begins like one, ends in .gguf, or is there; else a name on the hub.
    """

    def fix(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve())

    given = generator.model_dump(include={"gguf", "adapter"}, exclude_none=True)
    update = {name: fix(path) for name, path in given.items()}
    if isinstance(generator, TransformersGenerator):
        model = generator.model.removeprefix("hf:")
        if model.startswith((".", "/", "~")) or model.endswith(".gguf") or Path(fix(model)).exists():
            update["model"] = fix(model)
    return generator.model_copy(update=update)


class FileGenerator(Section):
    """No LLM: the pools are files that exist already, listed under ``pools``."""

    kind: Literal["files"]


Generator = Annotated[
    EmbeddedGenerator | EndpointGenerator | TransformersGenerator | FileGenerator, Field(discriminator="kind")
]
