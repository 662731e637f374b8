"""The run folder: the only reader and writer of study files.

Everything is written under a temporary name and renamed, or in one SQLite transaction, so that a kill at
any instant leaves either the old state or the new one.
"""

from cuvee.store.folder import (
    LEDGER,
    SHOWN_OUTPUTS,
    TRIALS,
    RunFolder,
    StoredPool,
    TrialCounts,
    count_trials,
    hold_file,
    list_parts,
    read_failures,
    read_json,
    read_trials,
)
