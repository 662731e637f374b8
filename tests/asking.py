"""Generating with settings as plain keywords, for tests that vary one of them."""

from dataclasses import fields, replace

from cuvee.generate import pools, targets
from cuvee.generate.client import LLMClient, OpenedLLM
from cuvee.generate.filling import AcceptanceRules
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import GenerationSpec

RULES = {field.name for field in fields(AcceptanceRules)}


def read_settings(given):
    """Keywords of generate_pools out of one mapping of settings."""
    rules = AcceptanceRules(**{name: given.pop(name) for name in RULES & given.keys()})
    names = {field.name for field in fields(GenerationSpec)}
    spec = GenerationSpec(rules=rules, **{name: given.pop(name) for name in names & given.keys()})
    llm = OpenedLLM(endpoint=given.pop("endpoint"), open_client=given.pop("open_client", LLMClient))
    return {"spec": spec, "llm": llm, **given}


def generate_pools(train, **given):
    return pools.generate_pools(train, **read_settings(given))


def generate_to_target(train, *, target, budget_rows=None, ledger=None, **given):
    target = replace(target, budget_rows=budget_rows)
    with Ledger() as memory:
        found = read_settings({"target": target, **given})
        return targets.generate_to_target(train, ledger=memory if ledger is None else ledger, **found)
