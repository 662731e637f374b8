"""What a user can do where answers of some kind are rejected again and again."""

from __future__ import annotations

from cuvee.generate.parsing import (
    CHATTER,
    COPY_OF_PROMPT,
    COPY_OF_TRAINING,
    DUPLICATE,
    EMPTY,
    MALFORMED,
    NEAR_COPY,
    NEAR_DUPLICATE,
    TRUNCATED,
    WRONG_LABEL,
)

REMEDIES = {
    TRUNCATED: "raise max_tokens",
    DUPLICATE: "raise the temperature, give more seed examples, or ask for fewer rows",
    COPY_OF_TRAINING: "raise the temperature",
    COPY_OF_PROMPT: "raise the temperature",
    EMPTY: "check the model and api: chat or completions",
    CHATTER: "use api: completions, or a larger model",
    MALFORMED: "use a larger model, or api: chat with one that answers in JSON",
    NEAR_DUPLICATE: "raise the temperature, or near_duplicate",
    NEAR_COPY: "raise the temperature, or near_duplicate",
    WRONG_LABEL: "check the labels of the training rows, or check no labels",
}
"""Reason of rejection -> remedy."""
