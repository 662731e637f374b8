"""The judge of a study: what trials wrote goes to an LLM from the process that holds the run folder, then into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cuvee.config.generators import JudgeConfig, LanguageModel, ReaderConfig
from cuvee.config.opening import find_sampling, open_model
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.evaluate.generation import distinct_prompts, token_f1
from cuvee.generate import judging
from cuvee.generate.calls import Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.ledger import Ledger
from cuvee.inputs import read_text
from cuvee.mix import Scored
from cuvee.records import Cell, Estimate, Floats, Trial, TrialFailure
from cuvee.study.prepare import Study

JUDGE = "judge.sqlite"  # of the run folder: every reply, with a budget of its own
_SHOWN = 2  # real rows that a reader sees before each question
_MOST_UNREAD = 0.5  # of a trial's rows; beyond that it has failed


def read_rubric(path: str | None, where: str = "evaluate.") -> str:
    """What a judge is told of good answers.

    Raises:
        InputError: the file cannot be read. ConfigError: it is empty.
    """
    rubric = judging.RUBRIC if path is None else read_text(Path(path))
    if not rubric.strip():
        raise ConfigError(f"{where}rubric {path}: is empty; say what a good answer is, or leave it out")
    return rubric


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
        read = judging.judge_texts(self.llm, self.ledger, self._show(trial), rubric=self.rubric, sampling=self.sampling)
        verdicts = np.array([np.nan if each is None else each for each in read])
        unread = int(np.isnan(verdicts).sum())
        self.rows, self.unread = self.rows + len(read), self.unread + unread
        if unread > _MOST_UNREAD * len(read):
            reason = f"{unread} of {len(read)} replies of the judge hold no single number from 1 to 10"
            return TrialFailure(cell=trial.cell, draw=trial.draw, stage="evaluate", reason=reason)
        marks = np.where(np.isnan(verdicts), np.nanmean(verdicts), verdicts)
        graded = (marks - judging.LEAST) / (judging.MOST - judging.LEAST)
        values = {"judge": Estimate(value=float(graded.mean()), n=len(read), settings={"without a verdict": unread})}
        scores = replace(trial.scores, graded=graded, score="judge", values={**trial.scores.values, **values})
        return replace(trial, scores=scores)

    def compare(self, trials: Sequence[Trial], cell: Cell) -> judging.Preference | None:
        """The answers of a cell against those of real-only, of the first draw that has both; None without one."""
        real = {each.draw: each for each in trials if each.cell.kind == "real-only"}
        pair = next(((each, real[each.draw]) for each in trials if each.cell == cell and each.draw in real), None)
        if pair is None:
            return None
        ours, others = self._show(pair[0]), pair[1].scores.written
        return judging.compare_texts(self.llm, self.ledger, ours, others, rubric=self.rubric, sampling=self.sampling)

    def tell_agreement(self, trials: Sequence[Trial]) -> str:
        """How the verdicts on all answers of trials go with token F1 against the real answers."""
        from scipy.stats import spearmanr

        verdicts = np.concatenate([trial.scores.per_item for trial in trials])
        f1 = np.array([token_f1(text.written, [text.reference]) for trial in trials for text in self._show(trial)])
        if not (np.ptp(verdicts) and np.ptp(f1)):
            return f"The judge's {len(f1)} verdicts, or the answers' token F1, are all alike: they cannot be compared."
        value = spearmanr(verdicts, f1).statistic
        return f"The judge's verdicts agree with token F1 by a rank correlation of {value:.2f} over {len(f1)} answers."

    def _show(self, trial: Trial) -> list[judging.JudgedText]:
        pairs = zip(self.shown, trial.scores.written, strict=True)
        return [judging.JudgedText(prompt=prompt, reference=known, written=text) for (prompt, known), text in pairs]


def _sample_least(part: LanguageModel) -> Sampling:
    """How replies are drawn: the likeliest words, unless a temperature is said."""
    sampling = find_sampling(part)
    return sampling if "temperature" in part.model_fields_set else replace(sampling, temperature=0.0)


def make_scored(settings: ReaderConfig | JudgeConfig, ledger: Path, *, real: Corpus, where: str = "filters.") -> Scored:
    """The filter that has an LLM score rows: a judge from 1 to 10 by a rubric, a reader by how well it agrees.

    A reader answers each prompt again, after two real rows; its agreement is the token F1 of its answer with the
    row's own. With the LLM that wrote the rows that is the round trip.

    Args:
        settings: the LLM, and the least score.
        ledger: of its replies.
        real: real rows, of which a reader is shown the two shortest.
        where: before the names of the LLM's settings, for messages.

    Raises:
        InputError: the rubric cannot be read. ConfigError: it is empty.
    """
    part, sampling, is_judge = settings.by, _sample_least(settings.by), isinstance(settings, JudgeConfig)
    rubric = read_rubric(settings.rubric, where) if isinstance(settings, JudgeConfig) else ""
    shown = sorted(zip(real.prompts, real.targets, strict=True), key=lambda pair: (len(pair[0]), pair))[:_SHOWN]

    def score(corpus: Corpus) -> Floats:
        prompts, targets = corpus.prompts, corpus.targets
        with Ledger(ledger) as replies, open_model(part, "generation", where=where) as llm:
            if is_judge:
                pairs = zip(prompts, targets, strict=True)
                texts = [judging.JudgedText(prompt=prompt, reference="", written=target) for prompt, target in pairs]
                found = judging.judge_texts(llm, replies, texts, rubric=rubric, sampling=sampling)
            else:
                answers = judging.answer_prompts(llm, replies, prompts, shown=shown, sampling=sampling)
                both = zip(answers, targets, strict=True)
                found = [None if answer is None else token_f1(answer, [target]) for answer, target in both]
        return np.array([np.nan if each is None else each for each in found])

    what = "verdict of the judge" if is_judge else "agreement with the reader"
    return Scored(score=score, least=settings.least, what=what, real=real, name=settings.name)


@contextmanager
def open_judge(study: Study, held_out: Corpus, rubric: str) -> Iterator[Judge | None]:
    """The study's judge of answers to held-out rows; None where it has none. It says at the end what it did."""
    part = study.config.evaluate.judge
    if part is None:
        yield None
        return
    prompts, rows = distinct_prompts(held_out)
    shown = [(prompt, held_out.targets[at[0]]) for prompt, at in zip(prompts, rows, strict=True)]
    with Ledger(study.folder.path / JUDGE) as ledger, open_model(part, "generation", where="evaluate.judge.") as llm:
        judge = Judge(llm=llm, ledger=ledger, rubric=rubric, sampling=_sample_least(part), shown=shown)
        yield judge
        if judge.rows:
            used = ledger.totals()
            study.note(
                f"judge: {judge.rows} answers judged, {judge.unread} of them without a readable verdict; in all "
                f"{used.requests} replies of {used.tokens} tokens"
            )
