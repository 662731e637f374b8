"""The values of one LLM call: where it goes, what is asked, what came back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from cuvee.fingerprint import hash_value

Api = Literal["chat", "completions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    ``base_url`` ends before ``/chat/completions``, usually in ``/v1``. ``api_key`` is sent and never shown,
    hashed or stored; ``key_name`` names the environment variable it came from, for messages. ``identity`` is
    what the ledger knows the endpoint by (default: ``base_url``). ``timeout_s`` bounds one
    request, ``give_up_s`` how long an outage is borne. ``check_model`` asks ``/models`` once for the model.
    """

    base_url: str
    model: str
    api: Api = "chat"
    api_key: str | None = field(default=None, repr=False, compare=False)
    key_name: str | None = None
    identity: str = ""
    concurrency: int = 16
    timeout_s: float = 120.0
    give_up_s: float = 300.0
    check_model: bool = True

    def __post_init__(self) -> None:
        if self.api not in ("chat", "completions"):
            raise ValueError(f"api {self.api!r}; valid choices: 'chat', 'completions'")
        if self.concurrency < 1:
            raise ValueError(f"concurrency {self.concurrency!r}; must be 1 or more")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if not self.identity:
            object.__setattr__(self, "identity", self.base_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the LLM draws its words. An empty ``stop`` leaves it to the prompt's form."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 48
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: ``messages`` of (role, content) for chat, or ``prompt`` for completions.

    ``replicate`` tells apart requests that are otherwise the same question asked again.
    """

    messages: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None
    sampling: Sampling
    seed: int
    replicate: int = 0

    def payload(self, model: str) -> dict[str, object]:
        """The JSON body of the request."""
        body: dict[str, object] = {"model": model}
        if self.prompt is not None:
            body["prompt"] = self.prompt
        else:
            body["messages"] = [{"role": role, "content": content} for role, content in self.messages]
        body.update(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            seed=self.seed,
        )
        if self.sampling.stop:
            body["stop"] = list(self.sampling.stop)
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. ``finish_reason`` is ``stop`` or ``length``, or what else the endpoint said.

    ``replayed`` answers come from the ledger.
    """

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    replayed: bool = field(default=False, compare=False)


def request_key(endpoint: Endpoint, request: Request) -> str:
    """SHA-256 of everything that determines the answer; not the key, time limits or concurrency."""
    return hash_value(_determinants(endpoint, request))


def request_json(endpoint: Endpoint, request: Request) -> str:
    """What :func:`request_key` hashes, as JSON."""
    return json.dumps(_determinants(endpoint, request), sort_keys=True)


def _determinants(endpoint: Endpoint, request: Request) -> dict[str, object]:
    return {
        "endpoint": endpoint.identity,
        "api": endpoint.api,
        "replicate": request.replicate,
        "body": request.payload(endpoint.model),
    }
