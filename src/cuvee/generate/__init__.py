"""Asks an LLM for rows at controlled levels of diversity: dials, prompts, client, ledger, pools.

Each name is loaded from its file when it is first used: the client alone takes half of the memory.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cuvee.generate.acceptance import AcceptanceRules
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
    from cuvee.generate.ledger import Ledger, summarise
    from cuvee.generate.pools import (
        GenerationSpec,
        Pool,
        PoolMaker,
        fill_pools,
        generate_corpus,
        generate_pools,
        write_quarantine,
    )
    from cuvee.generate.targets import Target, TargetResult, generate_to_target
    from cuvee.generate.transformers_llm import TransformersLLM
    from cuvee.records import Budget, Prices

_FILES = {
    "generate.acceptance": "AcceptanceRules",
    "generate.calls": "Answer Endpoint Request Sampling",
    "generate.client": "LLMClient OpenedLLM",
    "generate.dials": "Dial ParaphraseDial SamplingDial TopicsDial make_dial order_examples topics_from_words",
    "generate.embedded": "EmbeddedLLM",
    "generate.ledger": "Ledger summarise",
    "generate.pools": "GenerationSpec Pool PoolMaker fill_pools generate_corpus generate_pools write_quarantine",
    "generate.targets": "Target TargetResult generate_to_target",
    "generate.transformers_llm": "TransformersLLM",
    "records": "Budget Prices",
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """A name of the room, loaded from its file and kept."""
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"cuvee.{_FILE_OF[name]}"), name)
    globals()[name] = found
    return found
