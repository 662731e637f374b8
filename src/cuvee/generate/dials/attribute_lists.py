"""Attributes for the dial *attributes*, asked for from the LLM (AttrPrompt, arXiv 2306.15895). Pure.

As in AttrPrompt, the LLM first names attributes in which the texts can differ, then values of each. Here both
are the same for every label: a value that goes with one label only would change the label, not the diversity.
"""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.fingerprint import derive_seed
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.list_questions import Wording, list_question


def dimension_question(
    describe: str, count: int, *, api: Api = "chat", examples: Sequence[str] = (), avoid: Sequence[str] = (),
    sampling: Sampling | None = None, seed: int = 0, attempt: int = 0,
) -> Request:  # fmt: skip
    """A request for ``count`` attributes of texts; arguments as in :func:`topic_question`."""
    wording = Wording(
        heading=f"Some {describe}",
        listed=f"different attributes in which {describe} differ, whatever they are about, each in one to three words",
        intro=f"These are {describe}",
        asked=(
            f"different attributes in which {describe} can differ from each other, whatever they are about "
            "(such as style, length, point of view). Names alone, without values"
        ),
    )
    return list_question(
        wording,
        count=count,
        api=api,
        examples=examples,
        avoid=avoid,
        sampling=sampling,
        seed=derive_seed(seed, "dimensions", attempt) & 0x7FFFFFFF,
        replicate=attempt,
    )


def value_question(
    dimension: str, describe: str, count: int, *, api: Api = "chat", examples: Sequence[str] = (),
    avoid: Sequence[str] = (), sampling: Sampling | None = None, seed: int = 0, attempt: int = 0,
) -> Request:  # fmt: skip
    """A request for ``count`` values of one attribute of texts; arguments as in :func:`topic_question`."""
    wording = Wording(
        heading=f"Some {describe}",
        listed=f'different values of the attribute "{dimension}" of {describe}, each in one to three words',
        intro=f"These are {describe}",
        asked=f'different values that the attribute "{dimension}" of {describe} can have',
    )
    return list_question(
        wording,
        count=count,
        api=api,
        examples=examples,
        avoid=avoid,
        sampling=sampling,
        seed=derive_seed(seed, "values", dimension, attempt) & 0x7FFFFFFF,
        replicate=attempt,
    )
