"""The order in which the slots of a batch are settled, and what they may ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.strata import WRITINGS, Stratum, Writing


def settling_waves(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Slots in the groups in which they are settled: base slots after what they avoid, then paraphrases.

    Slots that are named and not there (a request of theirs failed for good) are waited for by nobody.
    """
    depth: dict[str, int] = {}
    waves: dict[tuple[bool, int], list[Slot]] = {}
    derived = {slot.key for slot in slots if slot.parent is not None}
    for slot in slots:
        if slot.parent is not None:
            named = [slot.parent] if slot.parent in derived else []
        else:
            named = [key for keys in slot.avoid.rounds for key in keys] if slot.avoid is not None else []
        depth[slot.key] = 1 + max((depth[key] for key in named if key in depth), default=-1)
        waves.setdefault((slot.parent is not None, depth[slot.key]), []).append(slot)
    return [waves[order] for order in sorted(waves)]


def check_slots(slots: Sequence[Slot], train: Corpus, strata: Mapping[str, Stratum], writing: Writing) -> None:
    """Refuse what cannot be asked for, before anything is.

    Raises:
        ConfigError: a slot of no stratum, seed examples that there are not, or drafts of a kind that has none.
    """
    known = set(train.ids)
    for slot in slots:
        if slot.label not in strata:
            raise ConfigError(f"slot {slot.key!r} is for {slot.label!r}; valid: {', '.join(list(strata)[:8])}")
        rows = len(strata[slot.label].rows)
        if slot.examples and max(slot.examples) >= rows:
            raise ConfigError(
                f"{max(slot.examples) + 1} seed examples are wanted of label {slot.label!r}, it has "
                f"{rows} training rows; drop the level or give more rows"
            )
        unknown = [id_ for id_ in slot.seed_ids if id_ not in known]
        if unknown:
            raise ConfigError(f"seed example {unknown[0]!r} of label {slot.label!r} is no training row")
        if slot.draft is not None and writing.pair:
            served = ", ".join(name for name, other in WRITINGS.items() if not other.pair)
            raise ConfigError(
                f"dial 'base_then_refine' drafts a text alone, and kind {writing.kind!r} has two sides; kinds that it "
                f"serves: {served}"
            )
