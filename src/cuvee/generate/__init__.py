"""Asks an LLM for rows at controlled levels of diversity: dials, prompts, client, ledger, pools."""

from cuvee.generate.calls import Answer, Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dials import DIALS, Batch, Dial, ParaphraseDial, SamplingDial, Slot, TopicsDial
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import Pool, generate_corpus, generate_pools

__all__ = [
    "DIALS",
    "Answer",
    "Batch",
    "Dial",
    "EmbeddedLLM",
    "Endpoint",
    "LLMClient",
    "Ledger",
    "ParaphraseDial",
    "Pool",
    "Request",
    "Sampling",
    "SamplingDial",
    "Slot",
    "TopicsDial",
    "generate_corpus",
    "generate_pools",
]
