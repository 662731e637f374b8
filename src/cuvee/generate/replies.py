"""Reading what an OpenAI-compatible endpoint sends back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cuvee.generate.calls import Answer
from cuvee.generate.masking import mask_secrets

LONGEST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """HTTP status, body, and the seconds to wait that it asks for."""

    status: int
    body: str
    retry_after: float | None = None


def parse_reply(reply: Reply) -> Answer | None:
    """The answer of a chat or completions reply; None if it is none."""
    data = _json_object(reply.body)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        return None
    usage = data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Answer(
        text=text or "",
        finish_reason=str(choice.get("finish_reason") or ""),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
    )


def error_status(reply: Reply) -> int:
    """The HTTP status, or the one that a reply with status 200 carries in its error (as gateways send it)."""
    if reply.status != 200 or '"error"' not in reply.body:
        return reply.status
    data = _json_object(reply.body)
    error = data.get("error")
    code = error.get("code") if isinstance(error, dict) and not data.get("choices") else None
    return code if isinstance(code, int) and 400 <= code < 600 else reply.status


def read_message(reply: Reply, secrets: tuple[str, ...] = ()) -> str:
    """What the server says is wrong, on one line, without secrets, shortened."""
    data = _json_object(reply.body)
    found: object = data.get("error", data.get("detail", data.get("message")))
    if isinstance(found, dict):
        found = found.get("message", found)
    text = reply.body if found is None else found if isinstance(found, str) else json.dumps(found)
    line = " ".join(mask_secrets(text, secrets).split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."


def model_owners(reply: Reply) -> dict[str, str] | None:
    """The ids listed by GET /models with who owns each, "" if not said; None if the reply is no such list."""
    data = _json_object(reply.body).get("data")
    if reply.status != 200 or not isinstance(data, list):
        return None
    entries = [entry for entry in data if isinstance(entry, dict) and "id" in entry]
    return {str(entry["id"]): str(entry.get("owned_by") or "") for entry in entries}


def _json_object(body: str) -> Mapping[str, object]:
    try:
        data = json.loads(body)
        if "\\ud" in body.lower():  # only whole characters can be stored
            data = json.loads(_whole_characters(json.dumps(data, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _whole_characters(text: str) -> str:
    """Halves of surrogate pairs joined, or replaced: only whole characters can be stored."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
