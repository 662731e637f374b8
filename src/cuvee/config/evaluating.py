"""The section of study.yaml for how trials are judged."""

from __future__ import annotations

from pydantic import Field

from cuvee.config.sections import Section
from cuvee.corpus import Task
from cuvee.evaluate import ITEM_SCORES
from cuvee.registry import nearest_name

_ONLY: dict[str, Task] = {"max_tokens": "generation", "diversity": "generation", "passages": "retrieval"}


class EvaluateConfig(Section):
    """How trials are judged on held-out real rows."""

    score: str | None = Field(
        None, description="what cells are compared by; null: accuracy, token_f1 or ndcg@10, by the task"
    )
    max_tokens: int = Field(64, ge=1, description="generation: of a completion that is written for evaluation")
    diversity: bool = Field(False, description="generation: measure the diversity of what each tuned model writes")
    passages: str | None = Field(None, description="retrieval: file of more passages to find the right ones among")

    def check(self, task: Task) -> None:
        """Refuse what the task has no use for.

        Raises:
            ValueError: naming the key.
        """
        valid = ITEM_SCORES[task]
        if self.score is not None and self.score not in valid:
            raise ValueError(f"evaluate.score is {self.score!r} for the task {task}; {nearest_name(self.score, valid)}")
        for key, only in _ONLY.items():
            if task != only and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"evaluate.{key} is for the task {only}, this one is {task}; leave it out")

    def score_of(self, task: Task) -> str:
        """What cells are compared by."""
        return self.score or ITEM_SCORES[task][0]
