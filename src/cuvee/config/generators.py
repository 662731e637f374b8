"""The section of study.yaml that says who writes the synthetic rows."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cuvee.config.sections import Section


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


_SECRET = re.compile(r"(key|token|secret|password|auth|sig)[^=&]*=", flags=re.IGNORECASE)


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
    """Any OpenAI-compatible endpoint."""

    kind: Literal["endpoint"]
    base_url: str = Field(description="for example http://localhost:8000/v1", pattern=r"^https?://")
    model: str
    api: Literal["chat", "completions"] = "chat"
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")
    concurrency: int | None = Field(32, ge=1, description="most requests in flight at once; null adapts, up to 256")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0, description="of prompts and answers together")
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

    @model_validator(mode="after")
    def _check(self) -> EndpointGenerator:
        parts = urlsplit(self.base_url)
        if parts.password or _SECRET.search(parts.query):
            raise ValueError("base_url holds a password or a key, which would be written to files; use api_key_env")
        if self.budget.cost is not None and self.prices is None:
            raise ValueError("a budget in money needs prices: give prompt_per_million and completion_per_million")
        return self


class TransformersGenerator(Section):
    """A transformers model in this process, for models without a server."""

    kind: Literal["transformers"]
    model: str = Field(description="a folder, a .gguf file, or NAME[@REVISION] on the Hugging Face hub")
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


class FileGenerator(Section):
    """No LLM: the pools are files that exist already, listed under ``pools``."""

    kind: Literal["files"]


Generator = Annotated[
    EmbeddedGenerator | EndpointGenerator | TransformersGenerator | FileGenerator, Field(discriminator="kind")
]
