"""Which columns of a file are read, and as what: usual names, and the formats of chats and instructions.

A chat is read as ``text -> target``: the last turn of the assistant is the target, the turns before it are the text.
The columns of the format stay beside both, so that the rows are written back as they came.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cuvee.corpus.cells import READ_ROWS, drop_nulls, is_json, name_kind, read_string
from cuvee.corpus.content import is_blank
from cuvee.errors import InputError

_LABEL_NAMES = ("label", "target", "category", "class", "intent", "completion", "answer")
_TEXT_NAMES = ("text", "sentence", "question", "query", "utterance", "prompt", "content", "title")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("prompt", "completion"), ("prompt", "response"),
    ("question", "answer"), ("query", "passage"), ("query", "positive"), ("anchor", "positive"),
)  # fmt: skip
RETRIEVED = ("passage", "positive")  # what a query is to find
INSTRUCTION = ("instruction", "input", "system", "history")
_NAMES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bing bard claude model bot ai function_call tool_call",
    "tool": "tool function observation ipython function_response tool_response",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_HEAD = re.compile(r"(?:\A|\n\n)\[(system|user|assistant|tool)\] ")
_WITHIN = re.compile(r"\n+(\n\[(?:system|user|assistant|tool)\] )")
_SAMPLE = 20

Turn = tuple[str, str]  # A role of ``_NAMES``, and what is said


def guess_columns(names: Sequence[str]) -> tuple[str | None, str | None]:
    """The columns that are text and label by their usual names."""
    by_name = {n.casefold(): n for n in names}
    text = next((by_name[n] for n in _TEXT_NAMES if n in by_name), None)
    label = next((by_name[n] for n in _LABEL_NAMES if n in by_name), None)
    return text, label


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The columns of a format of chats or instructions.

    Attributes:
        text: of the chat, or of what comes before the answer.
        target: of the answer; None where it is a turn of the chat.
        input: what an instruction is applied to.
        system: what the system says before all turns.
        history: of earlier turns, as pairs.
        context: what a question is about.
        is_chat: whether the text is a list of turns.
    """

    text: str
    target: str | None = None
    input: str | None = None
    system: str | None = None
    history: str | None = None
    context: str | None = None
    is_chat: bool = False

    @property
    def is_pair(self) -> bool:
        """Whether a row is a question and an answer, which may be a label."""
        return not self.is_chat and self.input is self.system is self.history is None

    @property
    def columns(self) -> list[str]:
        """All columns but the context, which is one of a corpus too."""
        return [name for name in (self.text, self.target, self.input, self.system, self.history) if name is not None]


# --- which format a file has -------------------------------------------------------------------------
def find_form(table: pa.Table, text: str | None, label: str | None, where: str) -> Form | None:
    """The format of a table by its columns; None where it is one text and one label a row.

    Args:
        table: the rows.
        text, label: columns that a user named, which decide.
        where: names the table.

    Raises:
        InputError: a column of chats holds them as Python writes them.
    """
    names, is_named = {name.casefold(): name for name in table.column_names}, not (text is label is None)
    if not is_named and names.keys() & {"label", "target"} and (guess_columns([*names])[0] or find_chat(table, where)):
        return None

    def extra(name: str) -> str | None:
        return names.get(name) if names.get(name) not in (text, label) else None

    chat = find_chat(table, where) if text is None else text if holds_turns(table, text, where) else None
    pairs = [(names[asked], names[answer]) for asked, answer in _PAIRS if names.keys() >= {asked, answer}]
    pairs = [(asked, answer) for asked, answer in pairs if text in (None, asked) and label in (None, answer)]
    if chat is not None and label is None and chat not in [asked for asked, _ in pairs]:
        return Form(text=chat, system=extra("system"), is_chat=True)
    for asked, answer in pairs:
        more = {name: extra(name) for name in INSTRUCTION[1:]} if asked.casefold() == INSTRUCTION[0] else {}
        context = extra("context") if text is None or label is None else None
        is_chat = holds_turns(table, asked, where)
        return Form(text=asked, target=answer, context=context, is_chat=is_chat, **more)
    return None


def find_chat(table: pa.Table, where: str) -> str | None:
    """The column of chats: one of a usual name, else the only one whose cells are turns."""
    named = [name for usual in _CHATS for name in table.column_names if name.casefold() == usual]
    found = [name for name in named if holds_turns(table, name, where)]
    others = [] if found else [name for name in table.column_names if holds_turns(table, name, where)]
    return found[0] if found else others[0] if len(others) == 1 else None


def choose_columns(table: pa.Table, text: str | None, label: str | None, where: str) -> dict[str, str]:
    """The columns that are read as text, label and context: those named, else those of the format or of usual names."""
    form = find_form(table, text, label, where)
    found = guess_columns(table.column_names) if form is None else (form.text, form.target)
    columns = {"text": text or found[0] or find_chat(table, where), "label": label or found[1]}
    columns["context"] = None if form is None else form.context
    return {role: name for role, name in columns.items() if name is not None}


def holds_turns(table: pa.Table, name: str, where: str) -> bool:
    """Whether the cells of a column are turns of a chat.

    Raises:
        InputError: they are, as Python writes them.
    """
    if table.column_names.count(name) != 1:
        return False
    place = table.column_names.index(name)
    field, column = table.schema.field(place), table.column(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (is_json(field) or pa.types.is_nested(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    for row in range(min(len(column), READ_ROWS)):
        cell = column[row].as_py()
        if isinstance(cell, str) and not is_json(field):
            if not cell.lstrip().startswith("[{"):
                return False
            if re.match(r"\s*\[\{'(role|from|content|value)'", cell):
                raise InputError(
                    f"{where}, row {row + 1}: column {name!r} holds a chat as Python writes it; write it as JSON "
                    "(json.dumps), or the file as JSONL"
                )
        turns = _decode(field, cell)
        if turns:
            first = turns[0] if isinstance(turns, list) else None
            return isinstance(first, dict) and bool(first.keys() & {"role", "from"})
    return False


def _decode(field: pa.Field, cell: object) -> object:
    """A cell as a value: the JSON of a list is that list, lists side by side are rows."""
    if isinstance(cell, str) and (is_json(field) or cell.lstrip().startswith("[{")):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    if isinstance(cell, dict) and cell and all(isinstance(value, list) for value in cell.values()):
        cell = [dict(zip(cell, row, strict=True)) for row in zip(*cell.values(), strict=False)]
    return cell


# --- reading ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What rows say: ``targets`` is None where no row has an answer; ``cut`` rows have turns after it."""

    texts: list[str]
    targets: list[str] | None
    cut: int


def read_form(table: pa.Table, form: Form, where: str, *, labelled: bool = True) -> Said:
    """The text and target of each row.

    Raises:
        InputError: a row has none of them, or holds something else; with what to do.
    """
    texts, targets, cut = list[str](), list[str | None](), 0
    for row, cells in enumerate(_each_row(table, form.columns), start=1):
        turns = _turns_of_row(form, cells, f"{where}, row {row}")
        answers = [at for at, (role, said) in enumerate(turns) if role == "assistant"]
        if not answers and labelled:
            raise InputError(f"{where}, row {row}: no turn is the assistant's, so nothing is learnt; drop the row")
        last = answers[-1] if answers else len(turns)
        text, target = render_turns(turns[:last]), turns[last][1] if answers else None
        if target is not None and is_blank(target):
            if labelled or not form.target:
                what = f"column {form.target!r}" if form.target else "the last turn of the assistant"
                raise InputError(f"{where}, row {row}: {what} is empty; fill it or drop the row")
            target = None
        if not text:
            raise InputError(f"{where}, row {row}: nothing is said before the answer; fill it or drop the row")
        cut += bool(answers) and any(said.strip() for _, said in turns[last + 1 :])
        texts.append(text)
        targets.append(target)
    whole = [target for target in targets if target is not None]
    if whole and len(whole) < len(targets):
        row = targets.index(None) + 1
        none = f"column {form.target!r} is empty" if form.target else "no turn is the assistant's"
        raise InputError(f"{where}, row {row}: {none}, and other rows have an answer; fill it or drop the row")
    return Said(texts=texts, targets=whole or None, cut=cut)


def read_chats(table: pa.Table, name: str, where: str) -> list[str]:
    """The chats of a column as whole texts."""
    cells = enumerate(read_cells(table, name), start=1)
    return [render_turns(_read_turns(cell, f"{where}, row {row}: column {name!r}")) for row, cell in cells]


def _each_row(table: pa.Table, names: Sequence[str]) -> Iterator[dict[str, object]]:
    for start in range(0, table.num_rows, READ_ROWS):
        part = table.slice(start, READ_ROWS)
        for cells in zip(*(read_cells(part, name) for name in names), strict=True):
            yield dict(zip(names, cells, strict=True))


def read_cells(table: pa.Table, name: str) -> list[object]:
    """The cells of a column, turns as lists."""
    field, column = table.schema.field(name), table[name]
    return [_decode(field, cell) for cell in column.to_pylist()]


def _turns_of_row(form: Form, cells: dict[str, object], where: str) -> list[Turn]:
    def tell(name: str, value: object) -> str:
        return read_string(value, f"{where}: column {name!r}") or ""

    turns: list[Turn] = []
    if form.system:
        turns.append(("system", tell(form.system, cells[form.system])))
    earlier = cells[form.history] if form.history else None
    if isinstance(earlier, str) and earlier.lstrip().startswith("["):  # as CSV holds it
        with contextlib.suppress(ValueError, RecursionError):
            earlier = json.loads(earlier)
    for pair in earlier if isinstance(earlier, list) else []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{where}: column {form.history!r} must hold pairs of turns; drop the row")
        turns += [(role, tell(str(form.history), said)) for role, said in zip(("user", "assistant"), pair, strict=True)]
    asked = cells[form.text]
    if isinstance(asked, list) or form.target is None:
        turns += _read_turns(asked, f"{where}: column {form.text!r}")
    else:
        task, on = tell(form.text, asked), tell(form.input, cells[form.input]) if form.input else ""
        if is_blank(task):
            raise InputError(f"{where}: column {form.text!r} is empty; fill it or drop the row")
        turns.append(("user", f"{task}\n\n{on}" if task.strip() and on.strip() else task))
    if form.target:
        answer, named = cells[form.target], f"{where}: column {form.target!r}"
        is_chat = isinstance(answer, list)
        turns += _read_turns(answer, named) if is_chat else [("assistant", tell(form.target, answer))]
    return turns


def _read_turns(cell: object, where: str) -> list[Turn]:
    if not cell and (cell is None or isinstance(cell, list | str)):
        raise InputError(f"{where} is empty; fill it or drop the row")
    if not isinstance(cell, list):
        raise InputError(f"{where} holds {name_kind(cell)}, not a list of turns; drop the row")
    return [_read_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(cell, start=1)]


def _read_turn(turn: object, where: str) -> Turn:
    if not isinstance(turn, dict):
        raise InputError(f"{where} holds {name_kind(turn)}, not an object with role and content; drop the row")
    name = turn.get("role") or turn.get("from")
    role = _ROLES.get(name.strip().casefold()) if isinstance(name, str) else None
    if role is None:
        said = "has no role" if name is None else f"is by {str(name)[:40]!r}, which is no known role"
        raise InputError(f"{where} {said}; name it system, user, assistant or tool (human and gpt are read too)")
    content = next((turn[key] for key in ("content", "value", "text") if turn.get(key) is not None), None)
    found = [_read_part(part, where) for part in (content if isinstance(content, list) else [content])]
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    found += [json.dumps(drop_nulls(call.get("function") or call), ensure_ascii=False) for call in calls]
    return role, "\n".join(part for part in found if part)


def _read_part(part: object, where: str) -> str:
    if isinstance(part, dict):
        kind = part.get("type", "text")
        if kind not in ("text", "input_text", "output_text"):
            raise InputError(f"{where} has a part of type {str(kind)[:40]!r}, which is no text; drop the row")
        part = part.get("text", part)
    return read_string(part, where) or ""


def render_turns(turns: Sequence[Turn]) -> str:
    """Turns as one text: a user's only turn as it is, others each after its role; empty turns are left out.

    ``split_turns`` gives them back: within a turn, a line that would begin another has one line break before it.
    """
    said = [(role, content) for role, content in turns if not is_blank(content)]
    if len(said) == 1 and said[0][0] == "user" and split_turns(said[0][1]) == said:
        return said[0][1]
    kept = [(role, _WITHIN.sub(r"\1", content)) for role, content in said]
    return "\n\n".join(f"[{role}] {content}" for role, content in kept)


# --- writing back ---------------------------------------------------------------------------------------
def split_turns(text: str) -> list[Turn]:
    """The turns of a text that ``render_turns`` could have made; a text without roles is a user's turn."""
    parts = _HEAD.split(text)
    if parts[0].strip() or len(parts) < 3:
        return [("user", text)]
    return [*zip(parts[1::2], parts[2::2], strict=True)]


def join_turns(text: str, *turns: Turn) -> str:
    """A text with further turns at its end."""
    return render_turns([*split_turns(text), *turns])


def add_context(context: str, text: str) -> str:
    """A context, a blank line and the text; of several turns, the user's first one is about it."""
    turns = split_turns(text)
    at = next((at for at, (role, _) in enumerate(turns) if role == "user"), None)
    if len(turns) == 1 or at is None:
        return f"{context}\n\n{text}"
    turns[at] = ("user", f"{context}\n\n{turns[at][1]}")
    return render_turns(turns)


def trainer_columns(prompts: Sequence[str], targets: Sequence[str], *, chats: bool) -> dict[str, pa.Array]:
    """What programs that fine-tune read: the prompt and its completion; of chats, turns of these and of both together.

    A prompt that is a text ends with a line break, since some programs write the completion right behind it.
    """
    if not chats:
        return {"prompt": pa.array([f"{prompt}\n" for prompt in prompts]), "completion": pa.array(targets, pa.string())}
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    asked = [[{"role": role, "content": said} for role, said in split_turns(prompt)] for prompt in prompts]
    answers = [[{"role": "assistant", "content": target}] for target in targets]
    both = [[*turns, *answer] for turns, answer in zip(asked, answers, strict=True)]
    made = {"messages": both, "prompt": asked, "completion": answers}
    return {name: pa.array(cells, kind) for name, cells in made.items()}


def form_of(table: pa.Table, texts: Sequence[str], targets: Sequence[str]) -> Form | None:
    """The format whose columns say what ``texts`` and ``targets`` say, in the first rows that have any."""
    form = find_form(table, None, None, "") if table.num_columns else None
    if form is None:
        return None
    rows = np.flatnonzero(table[form.text].is_valid().to_numpy(zero_copy_only=False))[:_SAMPLE].tolist()
    try:
        said = read_form(table.take(pa.array(rows, pa.int64())), form, "", labelled=False)
    except InputError:
        return None
    known = [targets[row] for row in rows]
    same = said.texts == [texts[row] for row in rows] and (said.targets or [""] * len(rows)) == known
    return form if rows and same else None


def fill_form(table: pa.Table, form: Form, like: pa.Table, texts: Sequence[str], targets: Sequence[str]) -> pa.Table:
    """The table with the columns of the format, made of text and target where a row has none.

    Args:
        table: the rows' own columns.
        form: the format.
        like: rows that came in it.
        texts, targets: of each row.
    """
    for name in form.columns:
        if name not in table.column_names:
            table = table.append_column(like.schema.field(name), pa.nulls(table.num_rows, like.schema.field(name).type))
    missing = np.flatnonzero(table[form.text].is_null().to_numpy(zero_copy_only=False)).tolist()
    if not missing:
        return table
    made: dict[str, dict[int, object]] = {name: {} for name in form.columns}
    chats = {name: _Style.of(like, name) for name in (form.text, form.target) if name and holds_turns(like, name, "")}
    has_inputs = form.input is not None and _has_inputs(like, form.text, form.input)
    for row in missing:
        turns, answer = split_turns(texts[row]), ("assistant", targets[row])
        if form.system and turns[0][0] == "system" and len(turns) > 1:
            made[form.system][row] = turns.pop(0)[1]
        if form.target is None:
            made[form.text][row] = chats[form.text].write([*turns, answer])
            continue
        asked = chats.get(form.text)
        made[form.text][row] = asked.write(turns) if asked else render_turns(turns)
        said = chats.get(form.target)
        made[form.target][row] = said.write([answer]) if said else answer[1]
        if form.input:
            made[form.input][row] = ""
            task, _, on = turns[0][1].partition("\n\n")
            if has_inputs and len(turns) == 1 and not is_blank(task) and not is_blank(on):
                made[form.text][row], made[form.input][row] = task, on
    for name, cells in made.items():
        place = table.column_names.index(name)
        field, values = table.schema.field(place), table.column(place).to_pylist()
        for row, value in cells.items():
            as_text = is_json(field) or not (isinstance(value, str) or pa.types.is_nested(field.type))
            values[row] = json.dumps(value, ensure_ascii=False) if as_text else value
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def _has_inputs(table: pa.Table, task: str, on: str) -> bool:
    """Whether the first blank line of a text is where the instruction ends and its input begins, in most first rows."""
    rows = zip(*(read_cells(table.slice(0, READ_ROWS), name) for name in (task, on)), strict=True)
    ends = ["\n\n" not in str(asked) for asked, given in rows if given or "\n\n" in str(asked)]
    return 2 * sum(ends) > len(ends)


@dataclass(frozen=True, slots=True)
class _Style:
    """How a file writes turns."""

    keys: tuple[str, str]
    names: dict[str, str]
    parts: bool
    aside: bool

    @classmethod
    def of(cls, table: pa.Table, name: str) -> _Style:
        """As the first rows of a column do."""
        turns = [turn for cell in read_cells(table.slice(0, _SAMPLE), name) if isinstance(cell, list) for turn in cell]
        who = "from" if any(turn.get("from") for turn in turns) else "role"
        what = next((key for key in ("content", "value", "text") if any(turn.get(key) for turn in turns)), "content")
        usual = {"user": "human", "assistant": "gpt"} if who == "from" else {}
        seen = {_ROLES.get(str(turn.get(who)).strip().casefold(), ""): str(turn.get(who)) for turn in reversed(turns)}
        names = {role: seen.get(role, usual.get(role, role)) for role in _NAMES}
        parts = any(isinstance(turn.get(what), list) for turn in turns)
        return cls((who, what), names, parts, pa.types.is_struct(table.schema.field(name).type))

    def write(self, turns: Sequence[Turn]) -> object:
        """The cell of some turns."""
        who, what = self.keys
        told = [(self.names[role], [{"type": "text", "text": said}] if self.parts else said) for role, said in turns]
        if self.aside:
            return {who: [role for role, _ in told], what: [said for _, said in told]}
        return [{who: role, what: said} for role, said in told]
