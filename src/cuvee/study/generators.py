"""The LLMs of a study: opening them, and what pools, lists and prices know them by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from cuvee.config import (
    EmbeddedDraft,
    EmbeddedGenerator,
    EndpointDraft,
    EndpointGenerator,
    FileGenerator,
    LocalOrRemote,
    TransformersDraft,
    TransformersGenerator,
)
from cuvee.config.generators import check_variables
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    Budget,
    Dial,
    Drafter,
    EmbeddedLLM,
    Endpoint,
    Ledger,
    LLMClient,
    OpenedLLM,
    Prices,
    Sampling,
    TransformersLLM,
)
from cuvee.generate.dials import wanted_slots
from cuvee.generate.embedded import LONG_TEXTS, SHORT_TEXTS
from cuvee.generate.identities import settle_identity
from cuvee.generate.masking import LOCAL
from cuvee.model_files import SMOLLM2_SHA256
from cuvee.study.model_hashes import ModelHashes
from cuvee.study.setup import Study
from cuvee.study.writing import commission

LanguageModel = EmbeddedGenerator | EndpointGenerator | TransformersGenerator
SPEED = {
    *("slots", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("requests_per_minute", "tokens_per_minute", "budget", "prices", "batch"),
}
"""Settings that answers do not depend on."""
DRAWING = {"temperature", "top_p", "min_p", "top_k", "max_tokens", "truncated"}
"""Settings of how rows are drawn."""
_SAID_OTHERWISE = {"base_url", "gguf", "adapter", "draft"}
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


def identify_generator(study: Study, *, drafts: bool = False, leave_out: frozenset[str] = frozenset()) -> str:
    """Hash of what determines the answers of the study's LLM.

    A model's file or folder counts by its contents, an endpoint by the identity that the ledger knows it by: replicas
    that come and go change nothing.

    Args:
        study: whose LLM.
        drafts: whether what writes drafts counts too.
        leave_out: settings that do not matter to what is asked.
    """
    generator = language_model(study)
    parts = [generator, *([generator.draft] if drafts and generator.draft is not None else [])]
    return hash_value([_identify(study, part, leave_out) for part in parts])


def _identify(study: Study, part: LocalOrRemote, leave_out: frozenset[str]) -> list[object]:
    hashes = ModelHashes(study.folder)
    hidden = SPEED | _SAID_OTHERWISE | leave_out
    if isinstance(part, EmbeddedDraft):
        known_by = [SMOLLM2_SHA256 if part.gguf is None else hashes.find(part.gguf)]
    elif isinstance(part, EndpointDraft):
        known_by = [settled_endpoint(study, part).identity]
    else:
        own = hashes.find(part.model)
        known_by = [own or "", "" if part.adapter is None else hashes.find(part.adapter)]
        hidden = hidden | ({"model"} if own else set())
    return [*known_by, part.model_dump(mode="json", exclude=hidden)]


def settled_endpoint(study: Study, part: EndpointDraft) -> Endpoint:
    """The endpoint of a section, under the identity that the run folder's ledger knows it by; without its key."""
    endpoint = _make_endpoint(part, key=None)
    if not study.folder.ledger_path.is_file():
        return endpoint
    with Ledger(study.folder.ledger_path) as ledger:
        return settle_identity(endpoint, ledger)


def is_drafting(study: Study, dial: Dial) -> bool:
    """Whether rows of a dial are drafted first."""
    wanted = commission(study)
    names = [level.name for level in dial.levels]
    batches = dial.batches(list(wanted.strata), blocks=[0], rows_per_label=wanted.rows, levels=names)
    return any(slot.draft is not None for slot in wanted_slots(batches).values())


def find_sampling(part: LocalOrRemote) -> Sampling:
    """How a section says that words are drawn; drafts have their temperature from the dial."""
    temperature = getattr(part, "temperature", Sampling().temperature)
    found = Sampling(temperature=temperature, top_p=part.top_p, max_tokens=part.max_tokens)
    return found if isinstance(part, EmbeddedDraft) else replace(found, min_p=part.min_p, top_k=part.top_k)


@contextmanager
def open_llm(study: Study) -> Iterator[OpenedLLM]:
    """The configured LLM: the embedded one started, a transformers model loaded, or the HTTP endpoint with its key.

    Raises:
        ConfigError: the environment variable is not set, or the study asks no LLM.
    """
    with _opened(study, language_model(study), "generator") as llm:
        yield llm


@contextmanager
def open_drafter(study: Study, dial: Dial) -> Iterator[Drafter | None]:
    """What writes the drafts of a dial, if it is another LLM than that of the rows; else None.

    Raises:
        ConfigError: as :func:`open_llm`.
    """
    part = language_model(study).draft
    if part is None or not is_drafting(study, dial):
        yield None
        return
    with _opened(study, part, "generator.draft") as llm:
        yield Drafter(llm=llm, sampling=find_sampling(part), keep_truncated=part.truncated == "keep")


@contextmanager
def _opened(study: Study, part: LocalOrRemote, where: str) -> Iterator[OpenedLLM]:
    with ExitStack() as stack:
        if isinstance(part, EmbeddedDraft):
            room = SHORT_TEXTS if study.config.task == "classification" else LONG_TEXTS
            llm = EmbeddedLLM(
                part.gguf,
                slots=part.slots or room.slots,
                context=part.context or room.context,
                threads=part.threads,
            )
            yield OpenedLLM(endpoint=stack.enter_context(llm).endpoint)
        elif isinstance(part, TransformersDraft):
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
            yield _open_endpoint(study, part, check_variables(part.urls, part.api_key_env, f"{where}."))


def _make_endpoint(part: EndpointDraft, *, key: str | None) -> Endpoint:
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


def _open_endpoint(study: Study, part: EndpointDraft, key: str | None) -> OpenedLLM:
    """An endpoint whose budget is that of the run folder; with another LLM for drafts, each has its own part of it."""
    endpoint = _make_endpoint(part, key=key)
    draft = language_model(study).draft
    if draft is None:
        return OpenedLLM(endpoint=endpoint)
    drafter = settled_endpoint(study, draft).known_as if isinstance(draft, EndpointDraft) else None
    drafts = part is draft
    if settled_endpoint(study, part).known_as == drafter and not drafts:
        return OpenedLLM(endpoint=endpoint)

    def counts(identity: str, model: str) -> bool:
        by_drafter = identity.startswith(LOCAL) if drafter is None else (identity, model) == drafter
        return by_drafter if drafts else not by_drafter

    return OpenedLLM(endpoint=endpoint, open_client=partial(LLMClient, counted=counts))
