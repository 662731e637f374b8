"""The LLMs of a study: opening them, and what pools, lists and prices know them by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from cuvee.config import (
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    TransformersGenerator,
)
from cuvee.config.generators import check_variables
from cuvee.corpus import Task
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    Budget,
    EmbeddedLLM,
    Endpoint,
    Ledger,
    OpenedLLM,
    Prices,
    Sampling,
    TransformersLLM,
)
from cuvee.generate.embedded import LONG_TEXTS, SHORT_TEXTS
from cuvee.generate.ledger import settle_identity
from cuvee.model_files import SMOLLM2_SHA256
from cuvee.study.model_hashes import ModelHashes
from cuvee.study.setup import Study

LanguageModel = EmbeddedGenerator | EndpointGenerator | TransformersGenerator
SPEED = {
    *("slots", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("requests_per_minute", "tokens_per_minute", "budget", "prices", "batch"),
}
"""Settings that answers do not depend on."""
DRAWING = {"temperature", "top_p", "min_p", "top_k", "max_tokens", "truncated"}
"""Settings of how rows are drawn."""
_SAID_OTHERWISE = {"base_url", "gguf", "adapter"}
"""Settings that an identity stands for."""


def language_model(study: Study) -> LanguageModel:
    """The generator of a study that asks an LLM.

    Raises:
        ConfigError: its pools are files.
    """
    generator = study.config.generator
    if isinstance(generator, FileGenerator):
        raise ConfigError("generator.kind is files: there is nothing to ask an LLM for")
    return generator


def identify_generator(study: Study, leave_out: frozenset[str] = frozenset()) -> str:
    """Hash of what determines the answers of the study's LLM.

    A model's file or folder counts by its contents, an endpoint by the identity that the ledger knows it by: replicas
    that come and go change nothing.

    Args:
        study: whose LLM.
        leave_out: settings that do not matter to what is asked.
    """
    generator, hashes = language_model(study), ModelHashes(study.folder)
    hidden = SPEED | _SAID_OTHERWISE | leave_out
    if isinstance(generator, EmbeddedGenerator):
        known_by = [SMOLLM2_SHA256 if generator.gguf is None else hashes.find(generator.gguf)]
    elif isinstance(generator, EndpointGenerator):
        known_by = [_settled_endpoint(study, generator).identity]
    else:
        own = hashes.find(generator.model)
        known_by = [own or "", "" if generator.adapter is None else hashes.find(generator.adapter)]
        hidden = hidden | ({"model"} if own else set())
    return hash_value([[*known_by, generator.model_dump(mode="json", exclude=hidden)]])


def _settled_endpoint(study: Study, part: EndpointGenerator) -> Endpoint:
    """The endpoint of a section, under the identity that the run folder's ledger knows it by; without its key."""
    endpoint = _make_endpoint(part, key=None)
    if not study.folder.ledger_path.is_file():
        return endpoint
    with Ledger(study.folder.ledger_path) as ledger:
        return settle_identity(endpoint, ledger)


def find_sampling(part: LanguageModel) -> Sampling:
    """How the generator says that words are drawn; dials may say otherwise."""
    found = Sampling(temperature=part.temperature, top_p=part.top_p, max_tokens=part.max_tokens)
    return found if isinstance(part, EmbeddedGenerator) else replace(found, min_p=part.min_p, top_k=part.top_k)


def open_llm(study: Study) -> AbstractContextManager[OpenedLLM]:
    """The configured LLM, as :func:`open_model` opens it; a ConfigError where the study asks none."""
    return open_model(language_model(study), study.config.task)


@contextmanager
def open_model(part: LanguageModel, task: Task, *, where: str = "generator.") -> Iterator[OpenedLLM]:
    """The embedded LLM started, a transformers model loaded, or the HTTP endpoint with its key.

    Args:
        part: what is said of it.
        task: of the rows that it writes.
        where: before the names of its settings, for messages.

    Raises:
        ConfigError: the environment variable is not set.
    """
    with ExitStack() as stack:
        if isinstance(part, EmbeddedGenerator):
            room = SHORT_TEXTS if task == "classification" else LONG_TEXTS
            llm = EmbeddedLLM(
                part.gguf,
                slots=part.slots or room.slots,
                context=part.context or room.context,
                threads=part.threads,
            )
            yield OpenedLLM(endpoint=stack.enter_context(llm).endpoint)
        elif isinstance(part, TransformersGenerator):
            model = TransformersLLM(
                part.model,
                device=part.device,
                dtype=part.dtype,
                batch=part.batch,
                context=part.context,
                api=part.api,
                adapter=part.adapter,
            )
            opened = stack.enter_context(model)
            yield OpenedLLM(endpoint=opened.endpoint, open_client=opened.open_client)
        else:
            key = check_variables(part.urls, part.api_key_env, where)
            yield OpenedLLM(endpoint=_make_endpoint(part, key=key))


def _make_endpoint(part: EndpointGenerator, *, key: str | None) -> Endpoint:
    first, *others = part.urls
    return Endpoint(
        base_url=first,
        replicas=tuple(others),
        model=part.model,
        api=part.api,
        api_key=key,
        key_name=part.api_key_env or "",
        concurrency=part.concurrency,
        requests_per_minute=part.requests_per_minute,
        tokens_per_minute=part.tokens_per_minute,
        budget=Budget(**part.budget.model_dump()),
        prices=None if part.prices is None else Prices(**part.prices.model_dump()),
        omit=part.omit,
        timeout_s=part.timeout_s,
        give_up_s=part.give_up_s,
    )
