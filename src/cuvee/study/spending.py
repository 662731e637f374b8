"""What generating a study's pools took: failed requests, what was noticed on the way, and what was spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from cuvee.config import EndpointGenerator
from cuvee.errors import ConfigError
from cuvee.generate import Ledger, Pool, Prices
from cuvee.generate.ledger import Session
from cuvee.generate.parsing import NO_SOURCE
from cuvee.generate.spending import account_generation, list_notes
from cuvee.records.generation import Generation
from cuvee.store import StoredPool
from cuvee.study.setup import Pools, Study


def find_prices(study: Study) -> Prices | None:
    """What the generator charges, if that is known."""
    generator = study.config.generator
    prices = generator.prices if isinstance(generator, EndpointGenerator) else None
    return None if prices is None else Prices(**prices.model_dump())


def retry_failed(study: Study) -> int:
    """Forget the requests that failed for good, so that pools that lack their rows are composed anew.

    Returns:
        How many there were.

    Raises:
        ConfigError: the study asks no LLM.
    """
    if study.config.generator.kind == "files":
        raise ConfigError("--retry-failed has no effect here: the pools of this study are files")
    if not study.folder.ledger_path.is_file():  # a fold that nothing was asked for yet
        return 0
    with Ledger(study.folder.ledger_path) as ledger:
        return ledger.forget_failures()


def lacks_forgotten(study: Study, pools: Iterable[StoredPool]) -> bool:
    """Whether one of these pools lacks rows of failed requests that the ledger has forgotten, to ask them again."""
    failed = {key for pool in pools for key in pool.failed}
    if not failed:
        return False
    with Ledger(study.folder.ledger_path) as ledger:
        return bool(failed - ledger.failures().keys())


def note_failed(study: Study, pools: Collection[StoredPool]) -> None:
    """Say how many requests failed for good, and how to ask them again."""
    failed = {key for pool in pools for key in pool.failed}
    if not failed:
        return
    with Ledger(study.folder.ledger_path) as ledger:
        reasons = Counter(failure.reason for key, failure in ledger.failures().items() if key in failed)
    kinds = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    requests, are = ("request", "is") if len(failed) == 1 else ("requests", "are")
    study.stages.listener.noted(
        f"{len(failed)} {requests} failed for good ({kinds}) and {are} not asked again; "
        f"to ask again: cuvee generate {study.folder.path} --retry-failed"
    )


def note_findings(study: Study, before: Iterable[Session], now: Iterable[Session]) -> None:
    """Say what was found out about the endpoint, once a run folder."""
    told = set(_findings(before))
    for note in dict.fromkeys(_findings(now)):
        if note not in told:
            study.stages.listener.noted(note)


def _findings(sessions: Iterable[Session]) -> list[str]:
    return [note for session in sessions for note in list_notes(session.notes, session.unverified)]


def account_pool(study: Study, pool: Pool, key: str, ledger: Ledger, sessions: Iterable[Session]) -> StoredPool:
    """A pool as it is stored, with the requests that failed for it and what its rows took.

    Levels share rows and sessions, so the sum over pools counts some twice.
    """
    usage, met, failures = pool.usage, list(sessions), ledger.failures()
    failed = tuple(sorted({q.request_key for q in pool.quarantine if q.request_key in failures}))
    prices = find_prices(study)
    generation = Generation(
        requests=usage.requests,
        replayed=usage.replayed,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost=None if prices is None else prices.cost(usage.prompt_tokens, usage.completion_tokens),
        currency="" if prices is None else prices.currency,
        retries=sum(session.retries for session in met),
        unanswered=sum(session.unanswered for session in met),
        failed=dict(Counter(failures[request].reason for request in failed)),
        rejected=dict(pool.accounting.answers.rejected),
        unverified=tuple(dict.fromkeys(name for session in met for name in session.unverified)),
        notes=tuple(dict.fromkeys(note for session in met for note in session.notes)),
    )
    return StoredPool(
        level=pool.level,
        corpus=pool.corpus,
        rejected=pool.rejected,
        usage=usage,
        note=pool.note,
        key=key,
        failed=failed,
        generation=generation,
    )


def account_study(study: Study, pools: Pools) -> Generation | None:
    """What generating all pools took, confirmation included; None where nothing was generated."""
    if study.config.generator.kind == "files" or not study.folder.ledger_path.is_file():
        return None
    # levels of a dial share slots: an answer is the same in all of them
    rejected = {(level.dial, r.slot, r.reason, r.text) for level, pool in pools.items() for r in pool.rejected}
    reasons = sorted(reason for _, _, reason, _ in rejected if reason != NO_SOURCE)
    with Ledger(study.folder.ledger_path) as ledger:
        return account_generation(ledger, find_prices(study), reasons)


def join_generations(folds: Sequence[Generation]) -> Generation | None:
    """What generating took in all folds together; None where there are none, and no cost where one fold's is not known.

    A note of all folds stands once, another one with the number of its fold.
    """
    if len(folds) < 2:
        return folds[0] if folds else None
    failed: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    notes: dict[str, list[int]] = {}
    for number, fold in enumerate(folds, start=1):
        failed.update(fold.failed)
        rejected.update(fold.rejected)
        for note in fold.notes:
            notes.setdefault(note, []).append(number)
    costs = [fold.cost for fold in folds if fold.cost is not None]
    return Generation(
        requests=sum(fold.requests for fold in folds),
        replayed=sum(fold.replayed for fold in folds),
        prompt_tokens=sum(fold.prompt_tokens for fold in folds),
        completion_tokens=sum(fold.completion_tokens for fold in folds),
        cost=sum(costs) if len(costs) == len(folds) else None,
        currency=folds[0].currency,
        retries=sum(fold.retries for fold in folds),
        unanswered=sum(fold.unanswered for fold in folds),
        failed=dict(sorted(failed.items())),
        rejected=dict(rejected.most_common()),
        unverified=tuple(dict.fromkeys(name for fold in folds for name in fold.unverified)),
        notes=tuple(
            note if len(numbers) == len(folds) else f"fold {', '.join(map(str, numbers))}: {note}"
            for note, numbers in notes.items()
        ),
    )
