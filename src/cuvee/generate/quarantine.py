"""The quarantine: every answer that became no row, in a file one can read, search and learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cuvee.corpus import replace_text
from cuvee.generate.composition import Pool


def write_quarantine(pools: Sequence[Pool], path: str | Path) -> int:
    """Write what was rejected from these pools as JSONL: dial, level, slot, reason, attempt, text, request_key.

    Levels share slots, so one answer may stand under several of them.

    Returns:
        How many lines were written.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [
        json.dumps({"dial": pool.level.dial, "level": pool.level.name, **asdict(row)}, ensure_ascii=False)
        for pool in pools
        for row in pool.quarantine
    ]
    replace_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
