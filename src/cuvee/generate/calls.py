"""The values of one LLM call: where it goes, what is asked, what came back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cuvee.masking import find_secrets, redact_url, spell_host
from cuvee.records import Budget, Prices, Usage
from cuvee.records import Sampling as Sampling

_SORTED_JSON = json.JSONEncoder(sort_keys=True)
_PLAIN_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))

Api = Literal["chat", "completions"]
MOST_AT_ONCE = 256  # requests that may be under way at each replica where no other number is given
# Settings of sampling that a request carries where they are set.
SAMPLING = ("temperature", "top_p", "max_tokens", "stop", "min_p", "top_k")
# Parameters that requests always carry (``stop`` if set), unless the endpoint is told to leave them out.
OMISSIBLE = ("temperature", "top_p", "seed", "stop", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible endpoint, or several replicas of it that serve the same model.

    ``base_url`` ends before ``/chat/completions``, usually in ``/v1``; ``replicas`` are the addresses of others.
    ``${NAME}`` in an address is filled in from the environment when a request is sent, and only then.
    ``api_key`` is sent and never shown, hashed or stored, nor is a user, password or query value in the URL;
    ``key_name`` names the environment variable the key came from, for messages. ``identity`` is what the ledger knows
    the endpoint by, all replicas as one: by default the first of their addresses in alphabetical order, without what
    is secret and with one spelling of its host (``cuvee.masking.spell_host``), unless the ledger knows
    one of them by another (``cuvee.generate.ledger.settle_identity``).

    ``concurrency`` is the most requests under way at once at each replica; None adapts up to 256. Up to it their number
    follows how well the replica answers. ``budget`` is what may be spent at its ``prices``: of all replicas together.
    ``timeout_s`` bounds one request, ``give_up_s`` how long an outage may last. ``omit`` names parameters that it
    refuses and that are not sent, ``extra_body`` holds parameters of its own that are sent with every request, and
    ``system="merge"`` puts the system message at the head of the user's, for models without that role.
    """

    base_url: str = field(repr=False)
    model: str
    api: Api = "chat"
    api_key: str | None = field(default=None, repr=False, compare=False)
    key_name: str | None = None
    identity: str = ""
    concurrency: int | None = None
    budget: Budget | None = None
    prices: Prices | None = None
    timeout_s: float = 120.0
    give_up_s: float = 300.0
    omit: tuple[str, ...] = ()
    extra_body: Mapping[str, object] = field(default_factory=dict, hash=False)
    system: Literal["send", "merge"] = "send"
    replicas: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.api not in ("chat", "completions"):
            raise ValueError(f"api {self.api!r}; valid choices: 'chat', 'completions'")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency {self.concurrency!r}; must be 1 or more, or None to adapt")
        if self.budget is not None and self.budget.cost is not None and self.prices is None:
            raise ValueError(f"budget.cost {self.budget.cost!r} needs prices: Prices(prompt_per_million=...)")
        if unknown := [name for name in self.omit if name not in OMISSIBLE]:
            raise ValueError(f"omit {unknown[0]!r}; valid choices: {', '.join(map(repr, OMISSIBLE))}")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        object.__setattr__(self, "api_key", self.api_key and self.api_key.strip())
        object.__setattr__(self, "replicas", tuple(url.rstrip("/") for url in self.replicas))
        if len(set(self.urls)) < len(self.urls):
            raise ValueError(f"replicas {self.addresses[1:]!r}; give each address once, base_url among them")
        identity = redact_url(self.identity, self.api_key) or min(map(spell_host, self.addresses))
        object.__setattr__(self, "identity", identity)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is: ``base_url`` and those of its replicas."""
        return (self.base_url, *self.replicas)

    @property
    def addresses(self) -> tuple[str, ...]:
        """``urls`` without what is secret."""
        return tuple(redact_url(url, self.api_key) for url in self.urls)

    @property
    def most_at_once(self) -> int:
        """Requests that may be under way at once, at each replica."""
        return MOST_AT_ONCE if self.concurrency is None else self.concurrency

    @property
    def shown_url(self) -> str:
        """Where it is, without what is secret, for messages."""
        first, *others = self.addresses
        return f"{first} and {len(others)} more" if others else first

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that no message or file may show."""
        found = {secret for url in self.urls for secret in find_secrets(url, self.api_key)}
        return tuple(sorted(found, key=lambda s: (-len(s), s)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: ``messages`` of (role, content) for chat, or ``prompt`` for completions.

    ``replicate`` tells apart requests that are otherwise the same question asked again. ``schema`` is the JSON schema
    of the wanted answer, as JSON text: endpoints write the properties in the order that they have there. The prompt
    says what JSON is wanted too, for endpoints that cannot hold the answer to a schema. ``model`` is another model at
    the same endpoint; None is the endpoint's own.
    """

    messages: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None
    sampling: Sampling
    seed: int
    replicate: int = 0
    schema: str | None = None
    model: str | None = None

    def payload(self, model: str) -> dict[str, object]:
        """The JSON body of the request."""
        body: dict[str, object] = {"model": self.model or model}
        if self.prompt is not None:
            body["prompt"] = self.prompt
        else:
            body["messages"] = [{"role": role, "content": content} for role, content in self.messages]
        given = {name: getattr(self.sampling, name) for name in SAMPLING}
        body |= {name: value for name, value in given.items() if value not in (None, ())} | {"seed": self.seed}
        if self.schema is not None:
            body["response_format"] = response_format(self.schema)
        return body

    @property
    def prompt_bytes(self) -> int:
        """Bytes of all that the LLM reads."""
        texts = [self.prompt or "", self.schema or "", *(part for message in self.messages for part in message)]
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + 8 * len(self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer. ``finish_reason`` is what the endpoint said (``cuvee.generate.replies.how_ended``).

    ``replayed`` answers come from the ledger.
    """

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    replayed: bool = field(default=False, compare=False)

    @property
    def usage(self) -> Usage:
        """One request and its tokens."""
        return Usage(requests=1, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)


def request_key(endpoint: Endpoint, request: Request) -> str:
    """SHA-256 of everything that determines the answer; not the key, time limits or concurrency.

    The same as ``cuvee.fingerprint.hash_value``, in a quarter of the time: a run begins with one for each request.
    """
    text = _PLAIN_JSON.encode(_determinants(endpoint, request))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def request_json(endpoint: Endpoint, request: Request) -> str:
    """What ``request_key`` hashes, as JSON."""
    return _SORTED_JSON.encode(_determinants(endpoint, request))


def _determinants(endpoint: Endpoint, request: Request) -> dict[str, object]:
    body = request.payload(endpoint.model)
    found = dict[str, object](endpoint=endpoint.identity, api=endpoint.api, replicate=request.replicate, body=body)
    if request.schema is not None:
        del body["response_format"]
        found["schema"] = request.schema  # as text: the order of its properties is that of the answer's
    system = "" if endpoint.system == "send" else endpoint.system
    own = {"omit": sorted(endpoint.omit), "extra_body": dict(endpoint.extra_body), "system": system}
    return found | {name: value for name, value in own.items() if value}


@lru_cache(maxsize=64)
def response_format(text: str) -> dict[str, object]:
    """What asks an OpenAI-compatible endpoint for answers that fit a schema; it is called by the schema's title."""
    schema = json.loads(text)
    return {"type": "json_schema", "json_schema": {"name": schema["title"], "schema": schema, "strict": True}}


# --- requests that failed for good: a value beside the answers, never a row that is silently missing ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The failure of a request that the endpoint refuses, or that keeps failing while others are answered.

    ``reason`` is short and the same for all failures of a kind ("HTTP 400"), so that it can be counted; ``message`` is
    the last thing the endpoint said, with no key in it. ``tries`` counts how often the request was sent.
    ``replayed`` failures come from the ledger.
    """

    reason: str
    message: str = ""
    tries: int = 1
    replayed: bool = field(default=False, compare=False)


Outcome = Answer | Failure  # what comes of a request
OnAnswer = Callable[[Request, Answer], None]  # is told of each answer
# ``more(outcomes)``: what to ask beside, given all that has come so far.
More = Callable[[Mapping[Request, Outcome]], Sequence[Request]]
