"""The run folder: the only reader and writer of study files.

Everything is written under a temporary name and renamed, or in one SQLite transaction, so that a kill at
any instant leaves either the old state or the new one.
"""

from cuvee.store.folder import RunFolder
from cuvee.store.outcomes import RunningTrial, TrialCounts, count_trials, read_failures
from cuvee.store.pools import StoredPool

__all__ = ["RunFolder", "RunningTrial", "StoredPool", "TrialCounts", "count_trials", "read_failures"]
