"""The judge of a study: what trials wrote goes to an LLM from the process that holds the run folder, then into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cuvee.config.opening import find_sampling, open_model
from cuvee.config.schema import EvaluateConfig
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.evaluate.generation import distinct_prompts
from cuvee.generate.calls import Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.judging import LEAST, MOST, RUBRIC, JudgedText, Preference, compare_texts, judge_texts
from cuvee.generate.ledger import Ledger
from cuvee.inputs import read_text
from cuvee.records import Cell, Estimate, Trial, TrialFailure
from cuvee.study.prepare import Study

JUDGE = "judge.sqlite"  # of the run folder: every reply, with a budget of its own
_MOST_UNREAD = 0.5  # of a trial's rows; beyond that it has failed


def read_rubric(config: EvaluateConfig) -> str:
    """What the judge is told of good answers; empty without a judge.

    Raises:
        InputError: the file cannot be read. ConfigError: it is empty.
    """
    rubric = RUBRIC if config.rubric is None else read_text(Path(config.rubric))
    if not rubric.strip():
        raise ConfigError(f"evaluate.rubric {config.rubric}: is empty; say what a good answer is, or leave it out")
    return "" if config.judge is None else rubric


@dataclass(kw_only=True)
class Judge:
    """Scores what trials wrote; ``rows`` were judged here, ``unread`` of them in vain."""

    llm: OpenedLLM
    ledger: Ledger
    rubric: str
    sampling: Sampling
    shown: Sequence[tuple[str, str]]  # prompt and reference of each item
    rows: int = 0
    unread: int = 0

    def judge(self, trial: Trial) -> Trial | TrialFailure:
        """The trial with its verdicts, from 0 (for 1) to 1 (for 10), as its score.

        A row without a verdict counts as the mean of the others; with too few of them the trial has failed.
        """
        found = judge_texts(self.llm, self.ledger, self._show(trial), rubric=self.rubric, sampling=self.sampling)
        verdicts = np.array([np.nan if each is None else each for each in found])
        unread = int(np.isnan(verdicts).sum())
        self.rows, self.unread = self.rows + len(found), self.unread + unread
        if unread > _MOST_UNREAD * len(found):
            reason = f"{unread} of {len(found)} replies of the judge hold no single number from 1 to 10"
            return TrialFailure(cell=trial.cell, draw=trial.draw, stage="evaluate", reason=reason)
        graded = (np.where(np.isnan(verdicts), np.nanmean(verdicts), verdicts) - LEAST) / (MOST - LEAST)
        values = {"judge": Estimate(value=float(graded.mean()), n=len(found), settings={"without a verdict": unread})}
        scores = replace(trial.scores, graded=graded, score="judge", values={**trial.scores.values, **values})
        return replace(trial, scores=scores)

    def compare(self, outcomes: Sequence[Trial | TrialFailure], cell: Cell) -> Preference | None:
        """The answers of a cell against those of real-only, of the first draw that has both; None without one."""
        trials = [each for each in outcomes if isinstance(each, Trial)]
        real = {each.draw: each for each in trials if each.cell.kind == "real-only"}
        pair = next(((each, real[each.draw]) for each in trials if each.cell == cell and each.draw in real), None)
        if pair is None:
            return None
        ours, others = self._show(pair[0]), pair[1].scores.written
        return compare_texts(self.llm, self.ledger, ours, others, rubric=self.rubric, sampling=self.sampling)

    def _show(self, trial: Trial) -> list[JudgedText]:
        pairs = zip(self.shown, trial.scores.written, strict=True)
        return [JudgedText(prompt=prompt, reference=known, written=text) for (prompt, known), text in pairs]


@contextmanager
def open_judge(study: Study, held_out: Corpus, rubric: str) -> Iterator[Judge | None]:
    """The study's judge of answers to held-out rows; None where it has none. It says at the end what it did."""
    part = study.config.evaluate.judge
    if part is None:
        yield None
        return
    sampling = find_sampling(part)
    if "temperature" not in part.model_fields_set:
        sampling = replace(sampling, temperature=0.0)
    prompts, rows = distinct_prompts(held_out)
    shown = [(prompt, held_out.targets[at[0]]) for prompt, at in zip(prompts, rows, strict=True)]
    with Ledger(study.folder.path / JUDGE) as ledger, open_model(part, "generation", where="evaluate.judge.") as llm:
        judge = Judge(llm=llm, ledger=ledger, rubric=rubric, sampling=sampling, shown=shown)
        yield judge
        if judge.rows:
            used = ledger.totals()
            study.stages.listener.noted(
                f"judge: {judge.rows} answers judged, {judge.unread} of them without a readable verdict; in all "
                f"{used.requests} replies of {used.prompt_tokens + used.completion_tokens} tokens"
            )
