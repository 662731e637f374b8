"""What all parts of study.yaml have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of study.yaml: unchanging, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
