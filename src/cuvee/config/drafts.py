"""Whether a generator for drafts has any to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cuvee.config.dials import BaseThenRefineConfig, CombinedConfig, DialConfig, OwnDialConfig
from cuvee.config.generators import EmbeddedDraft, LocalOrRemote


def check_drafts(draft: LocalOrRemote | None, dials: Sequence[DialConfig]) -> None:
    """Refuse a generator for drafts that no dial asks for drafts, or asks in another form than its own.

    A dial of the user's own may draft: whether it does is seen once it is made.

    Args:
        draft: of the generator; None is fine.
        dials: of the study.

    Raises:
        ValueError: naming the keys, and what to give instead.
    """
    if draft is None:
        return
    parts = [*_parts(dials)]
    drafting = [part for part in parts if isinstance(part, BaseThenRefineConfig)]
    if not drafting and not any(isinstance(part, OwnDialConfig) for part in parts):
        raise ValueError("generator.draft writes drafts, and no dial drafts; add base_then_refine, or remove it")
    for part in drafting:
        if not isinstance(draft, EmbeddedDraft) and part.draft != draft.api:
            raise ValueError(
                f"dial base_then_refine has draft: {part.draft} and generator.draft has api: {draft.api}; "
                "give both the same"
            )


def _parts(dials: Iterable[DialConfig]) -> Iterable[DialConfig]:
    """Dials, and of combined ones their two."""
    for dial in dials:
        yield from (dial.first, dial.second) if isinstance(dial, CombinedConfig) else (dial,)
