"""Rows that should not be trained on: degenerate text, leaks of held-out rows.

Pure functions on texts and vectors. A leak is a row that repeats a validation or test row more closely than
real training rows do by themselves.
"""

from cuvee.defects.degenerate import (
    COPY,
    GROUNDED,
    TOO_LONG,
    UNGROUNDED,
    DegenerateReason,
    degenerate_rows,
    grounded_share,
    grounded_shares,
    longest_answer,
    pair_reason,
)
from cuvee.defects.leaks import LeakFinder, Leaks, NoLeaks, SetLeak, SetLeakFinder
