"""An LLM that is ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass

from cuvee.generate.calls import Endpoint
from cuvee.generate.client import LLMClient
from cuvee.generate.rounds import OpenClient


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLLM:
    """What answers: the endpoint the ledger knows it by, and what asks it (over HTTP, unless said otherwise)."""

    endpoint: Endpoint
    open_client: OpenClient = LLMClient
