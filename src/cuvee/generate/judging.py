"""A judge: an LLM that gives each written answer a number from 1 to 10, journalled like every other answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.generate.calls import Answer, Outcome, Request, Sampling
from cuvee.generate.client import Find, OpenedLLM, answer_all
from cuvee.generate.ledger import Ledger
from cuvee.generate.replies import strip_thoughts

RUBRIC = "Is the answer right, complete and to the point? The reference is one good answer; others can be as good."
LEAST, MOST = 1.0, 10.0
ATTEMPTS = 2  # replies that a row may have before it stays without a verdict
_ASKED = "Judge one answer. Reply with one number from 1 (useless) to 10 (as good as can be), and with nothing else."
_NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?:\s*(?:/|out of|of)\s*10(?![\w.]))?(?![\w]|\.\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedText:
    """What a judge is shown: the prompt, one real answer, and the answer that a model wrote."""

    prompt: str
    reference: str
    written: str


def read_verdict(text: str) -> float | None:
    """The only number from 1 to 10 in a reply; None where there is none, or more than one."""
    found = {float(number) for number in _NUMBER.findall(strip_thoughts(text))}
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
    found: list[float | None] = [None] * len(texts)
    completes = llm.endpoint.api == "completions"

    def ask(text: JudgedText, attempt: int) -> Request:
        parts = (rubric.strip(), f"Prompt:\n{text.prompt}", f"Reference:\n{text.reference}", f"Answer:\n{text.written}")
        shown = "\n\n".join(parts)
        if completes:
            prompt = f"{_ASKED}\n\n{shown}\n\nNumber:"
            return Request(prompt=prompt, sampling=sampling, seed=attempt, replicate=attempt)
        messages = (("system", _ASKED), ("user", shown))
        return Request(messages=messages, sampling=sampling, seed=attempt, replicate=attempt)

    def read(outcome: Outcome) -> float | None:
        return read_verdict(outcome.text) if isinstance(outcome, Answer) else None

    def wanted(find: Find) -> list[Request]:
        asked = []
        for row, text in enumerate(texts):
            for request in (ask(text, attempt) for attempt in range(ATTEMPTS)):
                if (outcome := find(request)) is None:
                    asked.append(request)
                    break
                if (verdict := read(outcome)) is not None:
                    found[row] = verdict
                    break
        return asked

    answer_all(llm, ledger, wanted)
    return found
