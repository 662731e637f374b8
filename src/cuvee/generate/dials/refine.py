"""The dial *base_then_refine*: rows drafted at a high temperature, then put into good form (BARE, arXiv 2502.01697)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import (
    Draft,
    LevelDial,
    Slot,
    is_number,
    list_levels,
    rank_levels,
    slot_key,
)

DRAFT_FORMS = ("completions", "chat")


class BaseThenRefineDial(LevelDial):
    """Level t drafts every row at temperature t and has the LLM refine the draft at the study's own temperature.

    The draft brings the variety, the refinement the form: it keeps what the draft says. BARE drafts with a base model
    and refines with its instruct-tuned sibling: name the first as ``draft_model``, and the endpoint that serves both
    answers both. The draft completes a list of examples, the form that base models answer, and the refinement takes the
    endpoint's form. Levels share no row and are judged on their own.

    Args:
        levels: temperatures of the draft, 0 or more.
        draft: form of the draft's request; ``chat`` is for endpoints that serve no completions.
        draft_model: the model at the same endpoint that writes the drafts; None is the model of the rows.

    Raises:
        ConfigError: a temperature is out of range, or ``draft`` is neither form.
    """

    name = "base_then_refine"

    def __init__(
        self, *, levels: Sequence[int | float], draft: Literal["completions", "chat"] = "completions",
        draft_model: str | None = None,
    ) -> None:  # fmt: skip
        list_levels(self.name, levels)
        for level in levels:
            if not is_number(level) or not 0 <= level <= 100:
                raise ConfigError(f"dial {self.name!r}: level {level!r} must be a temperature from 0 to 100")
        if draft not in DRAFT_FORMS:
            raise ConfigError(f"dial {self.name!r}: draft {draft!r}; valid choices: {', '.join(DRAFT_FORMS)}")
        self._drafts = {f"{t:g}": Draft(temperature=float(t), api=draft, model=draft_model) for t in sorted(levels)}
        self.levels = rank_levels(self.name, [f"{t:g}" for t in sorted(levels)])

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        return tuple(
            Slot(
                key=slot_key(label, block, level, row),
                label=label,
                block=block,
                draft=self._drafts[level],
                number=row,
                order=row,
            )
            for row in range(rows)
            for label in labels
        )
