"""The LLM that a section of a file describes, opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cuvee.config import generators
from cuvee.corpus import Task
from cuvee.generate.calls import Endpoint, Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.embedded import LONG_TEXTS, SHORT_TEXTS, EmbeddedLLM
from cuvee.generate.transformers_llm import TransformersLLM
from cuvee.records import Budget


def find_sampling(part: generators.LanguageModel) -> Sampling:
    """How the generator says that words are drawn; dials may say otherwise."""
    drawing = {"temperature", "top_p", "max_tokens", "min_p", "top_k"}
    return Sampling(**part.model_dump(include=drawing))


@contextmanager
def open_model(part: generators.LanguageModel, task: Task, *, where: str = "generator.") -> Iterator[OpenedLLM]:
    """The embedded LLM started, a transformers model loaded, or the HTTP endpoint with its key.

    Args:
        part: what is said of it.
        task: of the rows that it writes.
        where: before the names of its settings, for messages.

    Raises:
        ConfigError: the environment variable is not set.
    """
    with ExitStack() as stack:
        if isinstance(part, generators.EmbeddedGenerator):
            room = SHORT_TEXTS if task == "classification" else LONG_TEXTS
            llm = EmbeddedLLM(
                part.gguf, slots=part.slots or room.slots, context=part.context or room.context, threads=part.threads
            )
            yield OpenedLLM(endpoint=stack.enter_context(llm).endpoint)
        elif isinstance(part, generators.TransformersGenerator):
            given = part.model_dump(include={"device", "dtype", "batch", "context", "api"})
            opened = stack.enter_context(TransformersLLM(part.model, **given))
            yield OpenedLLM(endpoint=opened.endpoint, open_client=opened.open_client)
        else:
            key = generators.check_variables(part.urls, part.api_key_env, where)
            yield OpenedLLM(endpoint=make_endpoint(part, key=key))


def make_endpoint(part: generators.EndpointGenerator, *, key: str | None) -> Endpoint:
    """The endpoint of a section, with its key where it has one and the caller needs it."""
    first, *others = part.urls
    limits = {"concurrency", "timeout_s", "give_up_s"}
    return Endpoint(
        base_url=first,
        replicas=tuple(others),
        api_key=key,
        key_name=part.api_key_env or "",
        budget=Budget(**part.budget.model_dump()),
        prices=generators.find_prices(part),
        **part.model_dump(include={"model", "api", "omit", "extra_body", "system", *limits}),
    )
