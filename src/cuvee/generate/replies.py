"""What an OpenAI-compatible endpoint sends back: from the bytes of a reply to the text that answers. Pure."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from cuvee.generate.calls import Answer
from cuvee.masking import mask_secrets

# How an answer ended: by itself, at max_tokens, withheld by a filter, declined by the model, in a call of a tool, or
# for a reason that is none of these.
LONGEST_MESSAGE = 300
End = Literal["whole", "cut", "filtered", "refused", "tool", "failed"]
_ENDS: Mapping[str, End] = {
    **dict.fromkeys(["", "none", "stop", "stopsequence", "eos", "eostoken", "endturn"], "whole"),
    **dict.fromkeys(["complete", "completed"], "whole"),
    **dict.fromkeys(["length", "maxtokens", "maxlength", "maxoutputtokens", "maxcompletiontokens"], "cut"),
    **dict.fromkeys(["modellength", "contextlength", "modelcontextwindowexceeded", "incomplete", "tokenlimit"], "cut"),
    **dict.fromkeys(["contentfilter", "contentfiltered", "safety", "recitation", "blocklist", "spii"], "filtered"),
    **dict.fromkeys(["prohibitedcontent", "sensitive", "guardrailintervened", "imagesafety"], "filtered"),
    **dict.fromkeys(["refusal", "refused"], "refused"),
    **dict.fromkeys(["toolcalls", "toolcall", "tooluse", "functioncall", "malformedfunctioncall"], "tool"),
}
_PASSES = re.compile(r"load|busy|capacity|temporar|rate.?limit|try again|server.?error|time.?out|upstream", re.I)


@dataclass(frozen=True, slots=True)
class Reply:
    """HTTP status, body, and the seconds to wait that it asks for."""

    status: int
    body: str
    retry_after: float | None = None


def read_body(body: bytes, charset: str | None) -> str:
    """The text of a body: UTF-8, with a byte order mark or without, else in the character set that its header names."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            codec = codecs.lookup(charset or "utf-8").name
        except LookupError:
            codec = "utf-8"
        return body.decode(codec, errors="replace")


def parse_reply(reply: Reply) -> Answer | None:
    """The answer of a chat or completions reply, sent whole or in pieces (server-sent events); None if it is none."""
    events = [_json_object(line[5:]) for line in reply.body.splitlines() if line.startswith("data:")]
    pieces = [_read_piece(data) for data in events or [_json_object(reply.body)]]
    found = [piece for piece in pieces if piece is not None]
    if not found:
        return None
    text = "".join(piece.text for piece in found if piece.finish_reason != _REFUSED)
    refusal = "".join(piece.text for piece in found if piece.finish_reason == _REFUSED)
    ends = [piece.finish_reason for piece in found if piece.finish_reason not in ("", _REFUSED)]
    return Answer(
        text=text or refusal,
        finish_reason=_REFUSED if refusal and not text else ends[-1] if ends else "",
        prompt_tokens=max(piece.prompt_tokens for piece in found),
        completion_tokens=max(piece.completion_tokens for piece in found),
    )


_REFUSED = "refusal"


def _read_piece(data: Mapping[str, object]) -> Answer | None:
    """What one JSON object of a reply holds: an answer, or its next words; None if it is no such object."""
    choices, usage = data.get("choices"), data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    if not choices and (not counts or "object" not in data):  # the last event of a stream may hold counts alone
        return None
    choice = choices[0] if choices else {}
    message = choice.get("message", choice.get("delta"))
    given = message if isinstance(message, dict) else {"content": message or choice.get("text")}
    content, refusal, end = given.get("content"), given.get("refusal"), str(choice.get("finish_reason") or "")
    text = _join(content, "text")
    if text is None:
        return None
    if not text and (declined := refusal if isinstance(refusal, str) else _join(content, "refusal")):
        text, end = declined, _REFUSED
    tokens = [_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    return Answer(text=text, finish_reason=end, prompt_tokens=tokens[0], completion_tokens=tokens[1])


def _join(content: object, name: str) -> str | None:
    """The text of a content: a string, or the joined parts of that name in a list; None if it is something else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    parts = [part.get(name) if isinstance(part, dict) else part for part in content]
    return "".join(part for part in parts if isinstance(part, str))


def _count(value: object) -> int:
    if isinstance(value, str):
        return int(value) if value.isdecimal() else 0
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def how_ended(finish_reason: str) -> End:
    """How an answer with this finish reason ended, however an endpoint spells it; any other word is no whole answer."""
    word = re.sub("[^a-z]", "", finish_reason.rpartition(".")[2].casefold())
    return _ENDS.get(word.removeprefix("finishreason"), "failed")


def error_status(reply: Reply) -> int:
    """The HTTP status; of a reply with status 200 that holds an error (as gateways send it) that of the error.

    An error without a number counts as 503 if its words say that it passes, else as 400.
    """
    if reply.status != 200 or '"error"' not in reply.body:
        return reply.status
    data = _json_object(reply.body)
    error = data.get("error")
    if not error or data.get("choices"):
        return reply.status
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int | str) and str(code).isdecimal():
        return int(code) if 400 <= int(code) < 600 else 400
    return 503 if _PASSES.search(json.dumps(error)) else 400


def read_message(reply: Reply, secrets: tuple[str, ...] = ()) -> str:
    """What the server says is wrong, on one line, without secrets, shortened."""
    data = _json_object(reply.body)
    found: object = data.get("error", data.get("detail", data.get("message")))
    if isinstance(found, dict):
        found = found.get("message", found)
    text = reply.body if found is None else found if isinstance(found, str) else json.dumps(found)
    # masked before it is shortened, so that no half of a key is left at the end
    line = " ".join(mask_secrets(text, secrets).split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."


def list_models(reply: Reply) -> list[str] | None:
    """The ids listed by GET /models; None if the reply is no such list."""
    data = _json_object(reply.body).get("data")
    if reply.status != 200 or not isinstance(data, list):
        return None
    return [str(entry["id"]) for entry in data if isinstance(entry, dict) and "id" in entry]


def wait_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: retry-after-ms, or Retry-After with a number or an HTTP date.

    A date is measured against the reply's own Date header, so clocks need not agree.
    """
    for header, unit in (("retry-after-ms", 1e-3), ("Retry-After", 1.0)):
        try:
            seconds = float(headers.get(header, "")) * unit
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    then, now = _http_date(headers.get("Retry-After")), _http_date(headers.get("Date"))
    return None if then is None else max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _json_object(body: str) -> Mapping[str, object]:
    """A JSON object, alone or as the one item of a list; line breaks in its strings need not be escaped."""
    try:
        data = json.loads(body, strict=False)
        if "\\ud" in body.lower():  # halves of surrogate pairs joined, or replaced: only whole characters can be stored
            text = json.dumps(data, ensure_ascii=False)
            data = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return {}
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    return data if isinstance(data, dict) else {}


# --- the answer itself, without what a model thought before and what it is wrapped in ---
_TAGS = "think|thinking|thought|thoughts|reasoning|analysis|reflection"
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", flags=re.DOTALL
)
# What models write before they answer: thoughts that are opened and closed, not closed, or not opened.
_OPENED = re.compile(
    r"\[THINK\]|<\|channel>|<seed:think>|◁think▷|<\|begin_of_thought\|>|\A\s*Here is my thought process:\s"
)
_CLOSED = re.compile(r"\[/THINK\]|<channel\|>|</seed:think>|◁/think▷|<\|end_of_thought\|>|\n\s*Here is my response:\s")
_THOUGHTS = (
    re.compile(rf"<({_TAGS})>.*?(?:</\1>|\Z)", flags=re.DOTALL | re.IGNORECASE),
    re.compile(r"\A\s*analysis(?=[A-Z]).*?(?:assistantfinal|\Z)", flags=re.DOTALL),
    re.compile(rf"\A.*</(?:{_TAGS})>", flags=re.DOTALL | re.IGNORECASE),
)
_ANSWER = re.compile(
    r"\A\s*(?:<(answer|response)>|<\|begin_of_solution\|>)(.*?)(?:</\1>|<\|end_of_solution\|>)?\s*\Z",
    flags=re.DOTALL | re.IGNORECASE,
)
_END = re.compile(
    r"(?:\s*(?:<\|(?:im_end|eot_id|eom_id|end|endoftext|return)\|>|<｜end▁of▁sentence｜>|</s>|<eos>|<end_of_turn>))+\s*\Z"
)
_FENCE = re.compile(r"\A(?:[^\n]*:\s*\n)?\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", flags=re.DOTALL)
MOST_STARTS = 64  # opening braces that are tried, so that a degenerate answer costs little


def strip_thoughts(text: str) -> str:
    """What is left of an answer without its thoughts and the tokens that end it; nothing if it broke off in thought."""
    channels = _CHANNEL.findall(text)
    if channels:
        final = [said for name, said in channels if name == "final"]
        return final[-1] if final else ""
    text = _CLOSED.sub("</think>", _OPENED.sub("<think>", text))
    for pattern in _THOUGHTS:
        text = pattern.sub("", text)
    text = _END.sub("", text).strip("\ufeff\u200b")
    answer = _ANSWER.match(text)
    return answer[2] if answer else text


def unwrap(text: str, fields: tuple[str, ...]) -> str | None:
    """An answer without the code fence around it; of a JSON object, its one field, or the first of ``fields``.

    A JSON list of one item stands for that item. None if it is an object with several fields and none of these.
    """
    fenced = _FENCE.match(text)
    inner = fenced[1] if fenced and "```" not in fenced[1] else text
    if inner.lstrip().startswith("["):
        items = next(find_objects(f'{{"items": {inner}}}'), {}).get("items")
        if isinstance(items, list) and len(items) == 1:
            inner = items[0] if isinstance(items[0], str) else json.dumps(items[0], ensure_ascii=False)
    if not (inner.lstrip().startswith("{") and inner.rstrip().endswith("}")):
        return inner
    found = next(find_objects(inner), None)
    if found is None:
        return inner
    values = [found[name] for name in fields if name in found][:1] or list(found.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def find_objects(text: str) -> Iterator[dict[str, object]]:
    """The JSON objects in a text, those inside others too, with their names in lower case."""
    decoder, start = json.JSONDecoder(parse_constant=_refuse_constant, strict=False), text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            return
        try:
            found, _end = decoder.raw_decode(text, start)
            # only whole characters can be stored: escaped halves of surrogate pairs are replaced
            whole = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            yield {name.casefold(): value for name, value in json.loads(whole).items()}
        except (ValueError, RecursionError):
            pass  # this brace opens no object: the next one may
        start = text.find("{", start + 1)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON
