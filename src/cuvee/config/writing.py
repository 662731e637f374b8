"""The section of study.yaml that says what the LLM writes and what of it is taken."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cuvee.config.sections import Section


class WritingConfig(Section):
    """What the LLM writes, with which prompts, and what of it is taken."""

    kind: Literal["label", "query", "question", "instruction", "story"] | None = Field(
        None, description="null: label, query, or question where rows have a context, else instruction, by the task"
    )
    prompts: str | None = Field(None, description="folder of prompts of your own; `cuvee prompts --out` copies ours")
    sources: str | None = Field(
        None, description="file of passages or contexts to write about; null: those of the training rows"
    )
    sources_text: str | None = Field(
        None, description="its column of passages or contexts; recognised by its usual names when left out"
    )
    near_duplicate: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Jaccard similarity from which a text repeats an earlier one; null: equal",
    )
    label_check: float | None = Field(
        None, gt=0, lt=1, description="least probability of a row's label by a probe of the real rows; null: not asked"
    )

    @model_validator(mode="after")
    def _check(self) -> WritingConfig:
        if self.sources_text is not None and self.sources is None:
            raise ValueError("sources_text names a column of the file sources, and there is none; give sources")
        return self
