"""What all parts of study.yaml have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cuvee.characters import check_name

Name = Annotated[str, AfterValidator(check_name)]
"""Of a level, a dial or a column: no control character."""


class Section(BaseModel):
    """A part of study.yaml: unchanging, and no key that it does not know; tracebacks do not show what was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def name_tag(value: object) -> str:
    """Which of several sections a named value is of: that of its name, or ``own`` for the user's ``module:Name``."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "own" if isinstance(name, str) and ":" in name else str(name)
