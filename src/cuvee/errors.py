"""Every error Cuvée raises on purpose.

::

    CuveeError                 what the command line prints as one line; exit code 2, of the last two 1
    ├── InputError             a file, row, column or label of the user's data is wrong
    ├── ConfigError            a key or value of study.yaml, or an option, is wrong
    ├── MissingDependency      an optional package is needed and absent
    ├── EndpointError          the LLM endpoint refused or failed
    │   ├── EndpointUnreachable    no answer: wrong address, refused, timed out, outage
    │   ├── AuthenticationError    401 or 403
    │   ├── ModelNotFound          the endpoint does not serve the named model
    │   └── BudgetReached          the next request could pass the budget
    ├── HubError               the Hugging Face hub refused, failed, or could not be reached
    ├── GenerationError        the LLM answers, but not enough usable rows came of it
    ├── RunFolderError         the run folder cannot be used
    │   ├── RunFolderBusy          another process holds it
    │   └── RunFolderMismatch      it holds another study: other data, split or seeds
    ├── IncomparableError      numbers measured in different ways cannot be compared
    ├── LeakError              a row repeats held-out data where none may
    ├── LockedTestError        the locked test was asked for a second time
    ├── TrainingError          a trainer could not train on what it was given
    ├── TrialsFailed           a study went through to its end, and no trial of a blend finished
    └── TrialsAwaited          trials run elsewhere, and their predictions are not there yet

``InputWarning`` is a warning of Python's, which the command line prints as a note. Messages say what is wrong, where,
and what to do about it, in one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CuveeError(Exception):
    """Base of all errors with a message meant for the user."""


class InputError(CuveeError):
    """A file, row, column or label of the user's data is wrong."""


class ConfigError(CuveeError):
    """A key or value of the study's config, or an option, is wrong."""


class MissingDependency(CuveeError):
    """An optional package is needed and not installed."""


class EndpointError(CuveeError):
    """The LLM endpoint refused or failed."""


class EndpointUnreachable(EndpointError):
    """No usable answer within the configured time."""


class AuthenticationError(EndpointError):
    """The endpoint answered 401 or 403."""


class ModelNotFound(EndpointError):
    """The endpoint does not serve the named model."""


class BudgetReached(EndpointError):
    """The next request could pass the budget; nothing failed, and all answers are kept."""


class HubError(CuveeError):
    """The Hugging Face hub refused, failed, or could not be reached."""


class GenerationError(CuveeError):
    """Too few usable rows came out of the LLM's answers."""


class RunFolderError(CuveeError):
    """The run folder cannot be used."""


class RunFolderBusy(RunFolderError):
    """Another process holds the run folder."""


class RunFolderMismatch(RunFolderError):
    """The run folder holds a study of other data, another split or other seeds."""


class IncomparableError(CuveeError):
    """Numbers measured with another encoder, number of rows or setting cannot be compared."""


class LeakError(CuveeError):
    """A row repeats held-out data where none may."""


class LockedTestError(CuveeError):
    """The locked test was asked for outside the final confirmation."""


class TrainingError(CuveeError):
    """A trainer could not train on what it was given."""


class TrialsFailed(CuveeError):
    """Every trial of the blends failed: a study went through to its end and has nothing to recommend."""


class TrialsAwaited(CuveeError):
    """Trials are to be run elsewhere; the study goes on when their predictions are there."""


class InputWarning(UserWarning):
    """What may be a mistake in the user's data: labels that differ by case alone, a separator that was guessed."""


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say in front of what is wrong with input or config inside the block where that is: ``dials.0``."""
    try:
        yield
    except (InputError, ConfigError) as exc:
        raise type(exc)(f"{place}: {exc}") from exc
