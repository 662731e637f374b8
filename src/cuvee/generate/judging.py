"""A judge: an LLM that gives each written answer a number from 1 to 10, or chooses one of two; and a reader, which
answers again. All is journalled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cuvee.generate.calls import Answer, Request, Sampling
from cuvee.generate.client import Find, OpenedLLM, answer_all
from cuvee.generate.ledger import Ledger
from cuvee.generate.replies import strip_thoughts

R = TypeVar("R")
RUBRIC = "Is the answer right, complete and to the point? The reference is one good answer; others can be as good."
LEAST, MOST = 1.0, 10.0
ATTEMPTS = 2  # replies that a row may have before it stays without a verdict
_ASKED = "Judge one answer. Reply with one number from 1 (useless) to 10 (as good as can be), and with nothing else."
_COMPARED = "Compare two answers. Reply with A or B for the better one, or with tie, and with nothing else."
_ANSWERED = "Answer from what is given, in as few words as the question needs. Reply with the answer alone."
_CHOICE = re.compile(r"\b(A|B|[Tt]ie|TIE)\b")
_NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?:\s*(?:/|out of|of)\s*10(?!\w|\.\d))?(?!\w|\.\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedText:
    """What a judge is shown: the prompt, one real answer if there is one, and the answer that a model wrote."""

    prompt: str
    reference: str
    written: str


def read_verdict(text: str) -> float | None:
    """The only number from 1 to 10 in a reply; None where there is none, or more than one."""
    found = {float(number) for number in _NUMBER.findall(strip_thoughts(text).replace("*", ""))}
    (value,) = found if len(found) == 1 else (None,)
    return value if value is not None and LEAST <= value <= MOST else None


def judge_texts(
    llm: OpenedLLM, ledger: Ledger, texts: Sequence[JudgedText], *, rubric: str, sampling: Sampling
) -> list[float | None]:
    """The verdict of each text, from 1 to 10; None where no reply could be read.

    Raises:
        EndpointError: the endpoint failed; the ledger keeps all replies.
        BudgetReached: the next request could pass the judge's budget.
    """
    shown = [_show(rubric, text, f"Answer:\n{text.written}") for text in texts]
    return _ask_each(llm, ledger, [(_ASKED, each, "Number:") for each in shown], read_verdict, sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a judge prefers of pairs that it saw in both orders: counts of pairs.

    Attributes:
        won, lost: the first or the other answer was preferred in both orders.
        tied: neither was; those among them where the same *place* was preferred in both orders are ``by_place``.
        unread: pairs of which a reply could not be read.
        first: times that the answer that was shown first was preferred.
        verdicts: replies that preferred one.
    """

    won: int
    lost: int
    tied: int
    by_place: int
    unread: int
    first: int
    verdicts: int

    def __str__(self) -> str:
        bias = f"{self.first / self.verdicts:.0%} of choices were of the answer shown first" if self.verdicts else ""
        tied = f"{self.tied} tied ({self.by_place} went with the place alone; {bias or 'no choice was made'})"
        return f"{self.won} won, {self.lost} lost, {tied}; {self.unread} without readable replies"


def compare_texts(
    llm: OpenedLLM, ledger: Ledger, texts: Sequence[JudgedText], others: Sequence[str], *, rubric: str,
    sampling: Sampling,
) -> Preference:  # fmt: skip
    """Which of two answers the judge prefers, each pair shown in both orders; equal ones are tied, and not shown.

    Raises:
        EndpointError, BudgetReached: as ``judge_texts``.
    """
    asked = [
        (_COMPARED, _show(rubric, text, f"Answer A:\n{pair[0]}\n\nAnswer B:\n{pair[1]}"), "A, B or tie:")
        for text, other in zip(texts, others, strict=True)
        if text.written != other
        for pair in ((text.written, other), (other, text.written))
    ]
    replies = _ask_each(llm, ledger, asked, read_choice, sampling)
    pairs = list(zip(replies[::2], replies[1::2], strict=True))
    whole = [pair for pair in pairs if None not in pair]
    won, lost = whole.count(("A", "B")), whole.count(("B", "A"))
    return Preference(
        won=won,
        lost=lost,
        tied=len(whole) - won - lost + len(texts) - len(pairs),
        by_place=whole.count(("A", "A")) + whole.count(("B", "B")),
        unread=len(pairs) - len(whole),
        first=replies.count("A"),
        verdicts=replies.count("A") + replies.count("B"),
    )


def read_choice(text: str) -> str | None:
    """A, B or tie; None where a reply names none of them, or more than one."""
    found = {name if len(name) == 1 else "tie" for name in _CHOICE.findall(strip_thoughts(text))}
    return found.pop() if len(found) == 1 else None


def _show(rubric: str, text: JudgedText, answers: str) -> str:
    reference = f"Reference:\n{text.reference}\n\n" if text.reference else ""
    return f"{rubric.strip()}\n\nPrompt:\n{text.prompt}\n\n{reference}{answers}"


def answer_prompts(
    llm: OpenedLLM, ledger: Ledger, prompts: Sequence[str], *, shown: Sequence[tuple[str, str]], sampling: Sampling
) -> list[str | None]:
    """A reader's own answer to each prompt, after prompts with their answers; None where it gave none.

    Raises:
        EndpointError, BudgetReached: as ``judge_texts``.
    """
    examples = "".join(f"{prompt}\nAnswer: {answer}\n\n" for prompt, answer in shown)
    asked = [(_ANSWERED, f"{examples}{prompt}", "Answer:") for prompt in prompts]
    sampling = replace(sampling, stop=("\n\n",)) if llm.endpoint.api == "completions" else sampling
    return _ask_each(llm, ledger, asked, lambda text: strip_thoughts(text).strip() or None, sampling)


def _ask_each(
    llm: OpenedLLM, ledger: Ledger, asked: Sequence[tuple[str, str, str]], read: Callable[[str], R | None],
    sampling: Sampling,
) -> list[R | None]:  # fmt: skip
    """What is read of the reply to each (task, content, end of a completion's prompt)."""
    found: list[R | None] = [None] * len(asked)
    completes = llm.endpoint.api == "completions"

    def ask(task: str, shown: str, end: str, attempt: int) -> Request:
        prompt = f"{task}\n\n{shown}\n\n{end}" if completes else None
        messages = () if completes else (("system", task), ("user", shown))
        return Request(prompt=prompt, messages=messages, sampling=sampling, seed=attempt, replicate=attempt)

    def wanted(find: Find) -> list[Request]:
        missing = []
        for row, parts in enumerate(asked):
            for request in (ask(*parts, attempt) for attempt in range(ATTEMPTS)):
                if (outcome := find(request)) is None:
                    missing.append(request)
                    break
                found[row] = read(outcome.text) if isinstance(outcome, Answer) else None
                if found[row] is not None:
                    break
        return missing

    answer_all(llm, ledger, wanted)
    return found
