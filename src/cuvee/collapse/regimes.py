"""Which rows a generation is trained on, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cuvee.config.collapse import CollapseConfig, RegimeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Diet:
    """What the generations of a course are trained on.

    Attributes:
        regime: ``replace``: what the generation before wrote. ``accumulate``: real rows and all that was ever written.
            ``accumulate_subsample``: as many of these as a generation has rows. ``fresh``: new real rows beside what
            the generation before wrote. ``curated``: what a filter chooses of more rows that the generation before
            wrote.
        share: of fresh real rows among the rows of a generation; 0 in other regimes.
        weight: of the fresh rows together, where all rows have 1.
    """

    regime: RegimeName
    share: float = 0.0
    weight: float = 0.0

    @property
    def name(self) -> str:
        """The regime, with the share of fresh rows."""
        return f"fresh {self.share:.0%}" if self.regime == "fresh" else self.regime

    def fresh_rows(self, rows: int) -> int:
        """Real rows of a generation of ``rows``; at least one, and at least one is written."""
        return min(rows - 1, max(1, round(self.share * rows))) if self.regime == "fresh" else 0


def best_weight(share: float) -> float:
    """The weight of fresh real rows that makes a mean most precise in the long run.

    With k real rows for each synthetic one it is ``(sqrt(k^2 + 4k) - k) / 2``, the golden ratio's 0.618 at k = 1
    (He et al. 2025, arXiv 2502.18049).
    """
    k = share / (1 - share)
    return (math.sqrt(k * k + 4 * k) - k) / 2


def list_diets(config: CollapseConfig) -> Iterator[Diet]:
    """One for each regime, for ``fresh`` one for each share."""
    wanted: float | Literal["pooled", "optimum"] = config.fresh.weight
    for regime in config.regimes:
        if regime != "fresh":
            yield Diet(regime=regime)
            continue
        for share in config.fresh.shares:
            # as realised: whole rows
            real = Diet(regime=regime, share=share).fresh_rows(config.model.rows) / config.model.rows
            weight = real if wanted == "pooled" else best_weight(real) if wanted == "optimum" else wanted
            yield Diet(regime=regime, share=real, weight=weight)
