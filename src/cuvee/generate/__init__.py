"""Asks an LLM for rows at controlled levels of diversity: dials, prompts, client, ledger, pools."""

from cuvee.generate.acceptance import AcceptanceRules
from cuvee.generate.budgets import Budget, Prices
from cuvee.generate.calls import Answer, Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient, OpenedLLM
from cuvee.generate.dials import (
    Dial,
    ParaphraseDial,
    SamplingDial,
    TopicsDial,
    make_dial,
    order_examples,
    topics_from_words,
)
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import (
    GenerationSpec,
    Pool,
    PoolMaker,
    fill_pools,
    generate_corpus,
    generate_pools,
    write_quarantine,
)
from cuvee.generate.spending import LedgerSummary, summarise
from cuvee.generate.targets import Target, TargetResult, generate_to_target
from cuvee.generate.transformers_llm import TransformersLLM

__all__ = [
    "AcceptanceRules",
    "Answer",
    "Budget",
    "Dial",
    "EmbeddedLLM",
    "Endpoint",
    "GenerationSpec",
    "LLMClient",
    "Ledger",
    "LedgerSummary",
    "OpenedLLM",
    "ParaphraseDial",
    "Pool",
    "PoolMaker",
    "Prices",
    "Request",
    "Sampling",
    "SamplingDial",
    "Target",
    "TargetResult",
    "TopicsDial",
    "TransformersLLM",
    "fill_pools",
    "generate_corpus",
    "generate_pools",
    "generate_to_target",
    "make_dial",
    "order_examples",
    "summarise",
    "topics_from_words",
    "write_quarantine",
]
