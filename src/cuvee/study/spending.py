"""The account of a run folder: what generating took in all its runs and folds, and which requests failed."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cuvee.config import EndpointGenerator, StudyConfig, read_config
from cuvee.errors import ConfigError
from cuvee.execute import Listener
from cuvee.generate import Ledger, LedgerSummary, Pool, Prices, summarise
from cuvee.generate.ledger import Session
from cuvee.generate.pools import count_rejected, read_quarantine
from cuvee.generate.spending import list_notes, tell_spending
from cuvee.records.generation import Generation, Quarantined
from cuvee.store import LEDGER, StoredPool, list_parts
from cuvee.study.setup import Study


def find_prices(config: StudyConfig) -> Prices | None:
    """What the generator charges, if that is known."""
    generator = config.generator
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


def note_failed(study: Study, pools: Iterable[StoredPool]) -> None:
    """Where pools lack rows of failed requests, say how many failed in the run folder, and how to ask them again."""
    if not any(pool.failed for pool in pools):
        return
    with Ledger(study.folder.ledger_path) as ledger:
        reasons = Counter(failure.reason for failure in ledger.failures().values())
    kinds = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    requests, are = ("request", "is") if reasons.total() == 1 else ("requests", "are")
    study.stages.listener.noted(
        f"{reasons.total()} {requests} failed for good ({kinds}) and {are} not asked again; "
        f"to ask again: cuvee generate {shlex.quote(str(study.folder.path))} --retry-failed"
    )


def note_findings(listener: Listener, before: Iterable[Session], now: Iterable[Session]) -> None:
    """Say what was found out about the endpoint, once a run folder."""
    told = set(_findings(before))
    for note in dict.fromkeys(_findings(now)):
        if note not in told:
            listener.noted(note)


def _findings(sessions: Iterable[Session]) -> list[str]:
    return [note for session in sessions for note in list_notes(session.notes, session.unverified)]


def store_pool(pool: Pool, key: str, ledger: Ledger) -> StoredPool:
    """A pool as it is stored, with the requests that failed for it."""
    failures = ledger.failures()
    return StoredPool(
        level=pool.level,
        corpus=pool.corpus,
        rejected=pool.rejected,
        note=pool.note,
        key=key,
        failed=tuple(sorted({q.request_key for q in pool.quarantine if q.request_key in failures})),
    )


def summarise_folder(path: Path, prices: Prices | None = None) -> LedgerSummary | None:
    """Count what a run folder holds of all its runs, in all its folds; None where no LLM was asked.

    Args:
        path: the folder.
        prices: None takes those of its study.yaml; without any, the cost is left open.

    Raises:
        RunFolderError: a ledger or a quarantine file is damaged.
    """
    parts = [part for part in list_parts(path) if (part / LEDGER).is_file()]
    if not parts:
        return None
    with ExitStack() as opened:
        ledgers = [opened.enter_context(Ledger(part / LEDGER, readonly=True)) for part in parts]
        rejected: Counter[str] = Counter()
        for part, ledger in zip(parts, ledgers, strict=True):
            rejected.update(_count_rejected(part, ledger))
        found = summarise(*ledgers, prices=prices or _read_prices(path))
    return replace(found, rejected=dict(rejected.most_common()))


def _count_rejected(part: Path, ledger: Ledger) -> dict[str, int]:
    """Rejected answers by reason: levels and dials share answers, and each counts once, for its first reason."""
    answers: dict[str, Quarantined] = {}
    for file in sorted((part / "pools").glob("*.quarantine.jsonl")):
        for row in read_quarantine(file):
            if row.request_key not in answers and ledger.holds(row.request_key):  # else it is a request that failed
                answers[row.request_key] = row
    return count_rejected(answers.values())


def _read_prices(path: Path) -> Prices | None:
    try:
        return find_prices(read_config(path / "study.yaml"))
    except ConfigError:  # not there, or damaged, which other commands tell: the counts hold without prices
        return None


def account_folder(path: Path) -> Generation | None:
    """What generating took in a run folder: the one account that report, status and the command line show.

    Raises:
        RunFolderError: as :func:`summarise_folder`.
    """
    found = summarise_folder(path)
    if found is None:
        return None
    prices = _read_prices(path)
    return Generation(
        requests=found.requests,
        replayed=found.replayed,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        cost=found.cost,
        currency="" if prices is None else prices.currency,
        retries=found.retries,
        unanswered=found.unanswered,
        failed=found.by_failure,
        rejected=found.rejected,
        unverified=found.unverified,
        notes=(*found.notes, *(tell_spending(found.by_endpoint) if len(found.by_endpoint) > 1 else ())),
    )
