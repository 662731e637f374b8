"""The corpus: an immutable Arrow table of examples of one task."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cuvee.characters import visible
from cuvee.corpus import forms
from cuvee.corpus.cells import READ_ROWS, as_strings, json_column, read_lists, stack_tables, to_typed
from cuvee.corpus.content import content_ids
from cuvee.errors import InputError, InputWarning, MissingDependency
from cuvee.fingerprint import hash_each, hash_texts
from cuvee.inputs import first_line
from cuvee.records.measurement import html_table, text_table
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["classification", "generation", "retrieval"]
Origin = Literal["real", "synthetic"]
BlendForm = Literal["auto", "prompt-completion", "messages"]
INPUT = "input_text"  # what ``text`` is called where programs that fine-tune would take it for all of a row

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("group", pa.string()),  # rows that belong together: a document, or a paraphrase and its source
        pa.field("seed_ids", pa.list_(pa.string())),  # the real training rows shown to the LLM
        pa.field("dial", pa.string()),
        pa.field("level", pa.string()),
        pa.field("block", pa.int32()),  # the generation draw the row belongs to
        pa.field("generator", pa.string()),
        pa.field("context", pa.string()),  # what a prompt is about: the passage a question is asked over
        pa.field("weight", pa.float64()),  # how much the row counts in training; without one it counts 1
    ]
)
_HEADS = ("text", "target", "origin")  # columns that are shown of the first rows
_MANY = 10  # rows, from which answers that are all different are no labels


@dataclass(frozen=True, eq=False)
class Corpus:
    """An immutable table of examples with the columns of ``SCHEMA``, then those of the user's own, and its task.

    Build one with ``cuvee.load_corpus``, ``from_rows`` or ``from_pandas``.
    """

    table: pa.Table
    task: Task = "classification"

    def __post_init__(self) -> None:
        if pa.schema(list(self.table.schema)[: len(SCHEMA)]) != SCHEMA:
            raise ValueError(f"table has schema {self.table.schema!r}; a corpus needs cuvee.corpus.SCHEMA")

    # --- making one ---
    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, object]], *, origin: Origin = "real", task: Task = "classification"
    ) -> Corpus:
        """A corpus from mappings with at least ``text`` and ``target``; missing ids are made from the content.

        Raises:
            InputError: a row lacks text or target, its context is no string, or two rows have the same id.
        """
        filled: list[dict[str, object]] = []
        for number, row in enumerate(rows):
            text, target = row.get("text"), row.get("target")
            if not isinstance(text, str) or not isinstance(target, str):
                raise InputError(f"row {number}: text and target must be strings, got {text!r} and {target!r}")
            if not isinstance(row.get("context"), str | None):
                raise InputError(f"row {number}: context must be a string or None, got {row.get('context')!r}")
            weight = 1.0 if row.get("weight") is None else row["weight"]
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < np.inf:
                raise InputError(f"row {number}: weight must be a number of at least 0 or None, got {weight!r}")
            filled.append({name: row.get(name) for name in SCHEMA.names} | {"origin": row.get("origin") or origin})
        unnamed = [row for row in filled if row["id"] is None]
        fresh = pa.Table.from_pylist(unnamed, schema=SCHEMA)
        for row, made in zip(unnamed, content_ids(fresh["text"], fresh["target"]).to_pylist(), strict=True):
            row["id"] = made
        corpus = cls(pa.Table.from_pylist(filled, schema=SCHEMA), task)
        if len(set(corpus.ids)) != len(corpus):
            repeated = Counter(corpus.ids).most_common(1)[0][0]
            raise InputError(f"row id {repeated!r} occurs twice; ids must be unique")
        return corpus

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, pa.ChunkedArray], *, origin: Origin = "real", task: Task = "classification",
        own: pa.Table | None = None,
    ) -> Corpus:  # fmt: skip
        """A corpus from columns of strings of one length: what ``from_rows`` makes of them, in less memory.

        Args:
            columns: ``text`` and ``target``, without nulls, and any of ``id``, ``group`` and ``context``.
            origin: of all rows.
            task: what the rows are for.
            own: other columns of the rows, under other names.
        """
        texts, targets = columns["text"], columns["target"]
        made = {field.name: pa.nulls(len(texts), field.type) for field in SCHEMA}
        made["id"] = columns["id"] if "id" in columns else content_ids(texts, targets)
        made |= {"origin": pa.repeat(pa.scalar(origin, pa.string()), len(texts))}
        table = pa.table({**made, **columns}, schema=SCHEMA)
        if own is not None:
            table = _append_columns(table, own)
        return cls(table.combine_chunks(), task)

    @classmethod
    def without_texts(
        cls, rows: int, *, targets: Sequence[str] | None = None, groups: Sequence[str] | None = None
    ) -> Corpus:
        """A corpus of ``rows`` examples whose texts are empty: what stands behind vectors that came without any.

        Args:
            rows: how many.
            targets: of each row, where known.
            groups: the same.

        Raises:
            ValueError: ``targets`` or ``groups`` of another length.
        """
        for name, given in (("targets", targets), ("groups", groups)):
            if given is not None and len(given) != rows:
                raise ValueError(f"{name} has {len(given)} entries for {rows} rows; give one each")
        columns = {"id": [*map(str, range(rows))], "text": [""] * rows, "target": targets or [""] * rows}
        columns |= {} if groups is None else {"group": groups}
        return cls.from_columns({name: pa.chunked_array([cells], pa.string()) for name, cells in columns.items()})

    @classmethod
    def from_pandas(
        cls, frame: pd.DataFrame, *, text: str = "text", label: str = "label", context: str | None = None,
        origin: Origin = "real", task: Task = "classification",
    ) -> Corpus:  # fmt: skip
        """A corpus from a DataFrame; ``text``, ``label`` and ``context`` name its columns. The others are kept too."""
        wanted = {text, label, context, *(forms.INSTRUCTION if text in forms.INSTRUCTION else ())}
        found = [*_frame_columns(frame, wanted)]
        table = pa.table([column for _, column in found], schema=pa.schema([field for field, _ in found]))
        named = {"text": text, "label": label, "context": context}
        return corpus_from_table(table, named, origin=origin, task=task, where="DataFrame")

    # --- reading it ---
    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """Row ids, unique."""
        return self._strings("id")

    @cached_property
    def id_hashes(self) -> NDArray[np.uint64]:
        """A hash of each row's id, shape (n,)."""
        return hash_each(self.ids)

    @cached_property
    def texts(self) -> list[str]:
        """The inputs."""
        return self._strings("text")

    @cached_property
    def targets(self) -> list[str]:
        """The labels (classification), completions or passages."""
        return self._repeated("target") if self.task == "classification" else self._strings("target")

    @cached_property
    def origins(self) -> list[str]:
        """``real`` or ``synthetic``, a row."""
        return self._repeated("origin")

    @cached_property
    def prompts(self) -> list[str]:
        """What a language model reads of each row: its context, if it has one, a blank line, and the text."""
        pairs = zip(self.contexts, self.texts, strict=True)
        return [text if not context else forms.add_context(context, text) for context, text in pairs]

    @cached_property
    def groups(self) -> list[str]:
        """The group of each row; a row without one is a group of its own."""
        named = self.table["group"].to_pylist()
        return [g if g is not None else f"row:{i}" for g, i in zip(named, self.ids, strict=True)]

    @cached_property
    def contexts(self) -> list[str | None]:
        """What each prompt is about (generation over a passage); None where a row has none."""
        return list(self.table["context"].to_pylist())

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """How much each row counts in training, shape (n,); 1 where nothing else was said."""
        return np.asarray(self.table["weight"].fill_null(1.0).to_numpy(), dtype=np.float64)

    @cached_property
    def blocks(self) -> NDArray[np.int32]:
        """The generation draw of each row, shape (n,); -1 where there is none."""
        return np.asarray(self.table["block"].fill_null(-1).to_numpy(), dtype=np.int32)

    @cached_property
    def labels(self) -> list[str]:
        """The distinct targets, sorted."""
        return sorted(self.table["target"].unique().to_pylist())

    @property
    def has_labels(self) -> bool:
        """Whether the targets are labels, and not all empty, as of rows that were read to be measured."""
        return self.task == "classification" and self.labels not in ([], [""])

    @property
    def own(self) -> pa.Table:
        """The columns that the user's file has besides those of ``SCHEMA``."""
        return self.table.select(self.table.column_names[len(SCHEMA) :])

    @cached_property
    def form(self) -> forms.Form | None:
        """The format of chats or instructions that the rows came in; None where it is plain text."""
        return forms.form_of(self.own, self._strings("text"), self._strings("target"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, texts, targets and origins, in order; of contexts and weights too, where some row has one."""
        parts = self._cells("id", "text", "target", "origin")
        if (self.weights != 1.0).any():
            return hash_texts(["weights", *(weight.hex() for weight in self.weights.tolist()), self._unweighted(parts)])
        return self._unweighted(parts)

    def _unweighted(self, parts: Iterable[str]) -> str:
        if self.table["context"].null_count < len(self):
            # marked, so that no context differs from an empty one, nor this hash from one of more rows
            contexts = ("-" if context is None else f"+{context}" for context in self.contexts)
            return hash_texts(chain([f"{self.task}+context"], parts, contexts))
        return hash_texts(chain([self.task], parts))

    def label_counts(self) -> dict[str, int]:
        """Rows of each label, sorted by label."""
        return dict(sorted(Counter(self.targets).items()))

    # --- deriving another ---
    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Corpus:
        """The rows at ``indices``, in that order."""
        return Corpus(self.table.take(pa.array(np.asarray(indices, dtype=np.int64))), self.task)

    def keep(self, mask: Sequence[bool] | NDArray[np.bool_]) -> Corpus:
        """The rows where ``mask`` (shape (n,)) is true."""
        return self.take(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def with_columns(self, **columns: Sequence[object] | NDArray[np.generic] | pa.Array) -> Corpus:
        """The same rows with other values in some columns of ``SCHEMA``; nothing but their types is checked.

        With another text or target the user's own columns are left out, since they are about the old one.
        """
        table = self.table.select(SCHEMA.names) if columns.keys() & {"text", "target"} else self.table
        for name, values in columns.items():
            field = SCHEMA.field(name)
            made = values if isinstance(values, pa.Array) else pa.array(values, field.type)
            table = table.set_column(SCHEMA.get_field_index(name), field, made)
        return Corpus(table, self.task)

    def joined(self, *others: Corpus) -> Corpus:
        """This corpus and the others, one after the other. Ids are not checked for being unique."""
        tables = [self.table, *(o.table for o in others)]
        return Corpus(stack_tables(tables, mixed=True).combine_chunks(), self.task)

    def formed_like(self, other: Corpus) -> Corpus:
        """The same rows with the columns of the format that another corpus came in, made of text and target."""
        form = other.form
        if form is None:
            return self
        own = forms.fill_form(self.own, form, other.own, self._strings("text"), self._strings("target"))
        return Corpus(_append_columns(self.table.select(SCHEMA.names), own), self.task)

    def to_trainers(self, form: BlendForm = "auto") -> pa.Table:
        """All columns as programs that fine-tune read them; of generation with a prompt and a completion.

        Those of chats are turns, with ``messages`` beside them. ``text`` is called ``input_text`` then: a program that
        finds ``text`` trains on it alone, or ends it in place of the completion. Read back, it is ``text`` again.

        Args:
            form: ``auto`` is ``messages`` where the rows came as chats or have several turns.
        """
        corpus = self.formed_like(self)
        if self.task != "generation":
            return corpus.table
        own, prompts = self.form, self.prompts
        chats = form == "messages" or (form == "auto" and own is not None and own.is_chat)
        chats = chats or (form == "auto" and any(len(forms.split_turns(prompt)) > 1 for prompt in prompts))
        keeps = ("messages",) if chats else ("prompt", "completion")
        table, is_whole = _rename(corpus.table, "text", INPUT), self.table["context"].null_count == len(self)
        for name in [] if chats or own is None else own.columns:  # turns beside a prompt that is a text
            table = _rename(table, name, f"own_{name}") if forms.holds_turns(table, name, "") else table
        for name, made in forms.trainer_columns(prompts, self.targets, chats=chats).items():
            if name in table.column_names:
                if is_whole and own is not None and name in own.columns and name in keeps:
                    continue  # as it came
                cells = zip(forms.read_cells(table, name), made.to_pylist(), strict=True)
                same = all(cell in (None, wanted) for cell, wanted in cells)
                table = table.drop_columns([name]) if same else _rename(table, name, f"own_{name}")
            table = table.append_column(name, made)
        return table

    def to_pandas(self) -> pd.DataFrame:
        """All columns as a DataFrame (needs the package ``pandas``)."""
        try:
            return cast("pd.DataFrame", self.table.to_pandas())
        except ImportError as exc:
            raise MissingDependency("pandas is not installed: pip install 'cuvee[pandas]'") from exc

    def _strings(self, name: str) -> list[str]:
        return list(self.table[name].to_pylist())

    def _repeated(self, name: str) -> list[str]:
        """The same for a column of few values: each is one string, however many rows have it."""
        coded = self.table[name].combine_chunks().dictionary_encode()
        values: list[str] = coded.dictionary.to_pylist()
        return [values[code] for code in coded.indices.to_numpy(zero_copy_only=False).tolist()]

    def _cells(self, *names: str) -> Iterator[str]:
        """The cells of some columns, row by row."""
        for batch in self.table.select(list(names)).to_batches(max_chunksize=READ_ROWS):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield from row

    def __repr__(self) -> str:
        counts = ", ".join(f"{visible(k)}: {v}" for k, v in list(self.label_counts().items())[:8])
        origins = ", ".join(f"{v} {k}" for k, v in sorted(Counter(self.origins).items()))
        return f"Corpus({self.task}, {len(self)} rows: {origins}; {counts})"

    def __str__(self) -> str:
        return "\n".join([repr(self), *text_table([self._heads, *self._head], widest=56)])

    def _repr_html_(self) -> str:
        return html_table(repr(self), self._heads, self._head)

    @property
    def _heads(self) -> Sequence[str]:
        return _HEADS if self.table["context"].null_count == len(self) else ("context", *_HEADS)

    @property
    def _head(self) -> list[list[str]]:
        """Cells of the first rows."""
        rows = self.table.slice(0, 5).select(self._heads).to_pylist()
        return [[row[name] or "" for name in self._heads] for row in rows]


def is_ours(names: Iterable[str]) -> bool:
    """Whether columns are those of a file that Cuvée wrote."""
    found = set(names)
    return found | ({"text"} if INPUT in found else set()) >= set(SCHEMA.names)


def _rename(table: pa.Table, name: str, to: str) -> pa.Table:
    return table.rename_columns([to if each == name else each for each in table.column_names])


def _append_columns(table: pa.Table, own: pa.Table) -> pa.Table:
    return pa.table([*table.columns, *own.columns], schema=pa.schema([*table.schema, *own.schema]))


def _frame_columns(frame: pd.DataFrame, read: Collection[str | None]) -> Iterator[tuple[pa.Field, pa.Array]]:
    """The columns; one that is not read is JSON where its cells are of mixed kinds, and left out where that fails."""
    for place, name in enumerate(map(str, frame.columns)):
        column = frame.iloc[:, place]
        try:
            made = pa.Array.from_pandas(column)
            yield pa.field(name, made.type), made
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as exc:
            said = f"DataFrame: column {name!r} mixes kinds or holds no text ({first_line(exc)})"
            if name in read:
                raise InputError(f"{said}; make it text") from exc
            try:
                yield json_column(name, column.tolist(), plain=False)
            except (TypeError, ValueError):
                warnings.warn(f"{said}; it is left out", InputWarning, stacklevel=3)


def corpus_from_table(
    table: pa.Table, named: Mapping[str, str | None], *, origin: Origin, task: Task | None, where: str,
    labelled: bool = True,
) -> Corpus:  # fmt: skip
    """A corpus from an Arrow table with the user's own columns; ``where`` names it in messages.

    Args:
        table: the rows.
        named: its columns by their roles ``text``, ``label``, ``group``, ``context``; the first two are found if None.
        origin: of all rows.
        task: what they are for; None is generation for chats and instructions, retrieval for queries with passages,
            else classification.
        where: names the table in messages.
        labelled: False lets rows have no targets.
    """
    text, label, group, context = (named.get(role) for role in ("text", "label", "group", "context"))
    for role, name in named.items():
        if name is not None:
            _column(table, name, role, where)
    form = forms.find_form(table, text, label, where)
    if form is None:
        columns, used = _read_plain(table, text, label, where, labelled=labelled)
    else:
        columns, used = _read_formed(table, form, where, labelled=labelled), set[str]()
        task = choose_task(task, form, columns["target"], where)
        context = form.context if context is None and task == "generation" else context
    for role, name in (("group", group), ("context", context)):
        if name:
            columns[role] = column_strings(table, name, where, role=role)
    own = own_columns(table, used | {group or "", context or ""})
    return Corpus.from_columns(columns, origin=origin, task=task or "classification", own=own)


def read_ours(table: pa.Table, where: str, task: Task | None) -> Corpus:
    """A corpus that Cuvée wrote; a file of text alone, such as CSV, has its numbers and lists as text."""
    columns = dict[str, pa.ChunkedArray]()
    if INPUT in table.column_names and "text" not in table.column_names:
        table, task = _rename(table, INPUT, "text"), "generation"
    for field in SCHEMA:
        given, column = table.schema.field(field.name), table[field.name]
        try:
            if pa.types.is_string(field.type):
                column = as_strings(given, column, where, blank=True)
            elif pa.types.is_list(field.type):
                column = pa.chunked_array([read_lists(column)])
            else:
                column = to_typed(given, column)
            column = column.cast(field.type)
        except (pa.ArrowException, ValueError) as exc:
            raise InputError(f"{where}: has columns of a Cuvée corpus, {field.name} of another type ({exc})") from exc
        if not field.nullable:
            refuse_nulls(column, field.name, where)
        columns[field.name] = column
    typed = _append_columns(pa.table(columns, schema=SCHEMA), own_columns(table))
    found = Corpus(typed.combine_chunks(), task or "classification")
    if task is None and found.form is not None:
        found = Corpus(found.table, choose_task(None, found.form, found.table["target"], where))
    if strange := sorted(set(found.origins) - set(get_args(Origin))):
        raise InputError(f"{where}: origin {strange[0]!r} is not one of {', '.join(get_args(Origin))}")
    wrong = np.flatnonzero(~(np.isfinite(found.weights) & (found.weights >= 0)))
    if len(wrong):
        row, weight = int(wrong[0]), found.weights[wrong[0]]
        raise InputError(f"{where}, row {row + 1}: weight is {weight:g}; give a number of at least 0, or none")
    return found


def _read_plain(
    table: pa.Table, text: str | None, label: str | None, where: str, *, labelled: bool
) -> tuple[dict[str, pa.ChunkedArray], set[str]]:
    """Text and target of rows of one text and one label, and the columns that hold no more than these."""
    guessed_text, guessed_label = forms.guess_columns(table.column_names)
    text_column = _column(table, text or guessed_text or forms.find_chat(table, where), "text", where)
    is_chat = forms.holds_turns(table, text_column, where)
    chats = [forms.read_chats(table, text_column, where)] if is_chat else None
    texts = pa.chunked_array(chats, pa.string()) if chats else filled_strings(table, text_column, where)
    columns, used = {"text": texts}, set() if is_chat else {text_column}
    if not labelled and label is None and (guessed_label is None or _is_empty(table, guessed_label, where)):
        return columns | {"target": _empty(table)}, used
    label_column = _column(table, label or guessed_label, "label", where)
    return columns | {"target": filled_strings(table, label_column, where)}, used | {label_column}


def _read_formed(table: pa.Table, form: forms.Form, where: str, *, labelled: bool) -> dict[str, pa.ChunkedArray]:
    """Text and target of rows of a format."""
    if form.target is not None and form.is_pair:
        alone = not labelled and _is_empty(table, form.target, where)
        targets = _empty(table) if alone else filled_strings(table, form.target, where)
        return {"text": filled_strings(table, form.text, where), "target": targets}
    said = forms.read_form(table, form, where, labelled=labelled)
    if said.targets is None:
        warnings.warn(f"{where}: no row has an answer; texts are read alone", InputWarning, stacklevel=2)
    if said.cut:
        many = f"{said.cut} of {table.num_rows} chats go on after the last turn of the assistant"
        warnings.warn(f"{where}: {many}; these turns are kept, and neither text nor target", InputWarning, stacklevel=2)
    targets = _empty(table) if said.targets is None else pa.chunked_array([said.targets], pa.string())
    return {"text": pa.chunked_array([said.texts], pa.string()), "target": targets}


def choose_task(task: Task | None, form: forms.Form, targets: pa.ChunkedArray, where: str) -> Task:
    """The task of rows of a format: answers of pairs of which fewer than half are distinct are labels.

    Raises:
        InputError: classification is asked for, and nearly every answer is another.
    """
    rows, distinct = len(targets), len(targets.unique())
    if task is None and form.target is not None and form.target.casefold() in forms.RETRIEVED:
        return "retrieval"
    if task is None:
        return "classification" if form.is_pair and 2 * distinct <= rows else "generation"
    if task == "classification" and rows >= _MANY and 2 * distinct > rows:
        raise InputError(
            f"{where}: holds answers, not labels ({distinct} different ones in {rows} rows); the task is generation "
            "(--task generation, or task: generation in study.yaml)"
        )
    return task


def own_columns(table: pa.Table, used: Collection[str] = ()) -> pa.Table:
    """The columns that are not read; one whose name a column of a corpus has gets ``own_`` before it."""
    is_own = is_ours(table.column_names)
    fields, columns, taken = list[pa.Field](), list[pa.ChunkedArray](), set(SCHEMA.names)
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.name in used or (is_own and field.name in SCHEMA.names):
            continue
        name = field.name
        while name in taken:
            name = f"own_{name}"
        taken.add(name)
        fields.append(field.with_name(name))
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields))


def _empty(table: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([[""] * table.num_rows], pa.string())


def _is_empty(table: pa.Table, column: str, where: str) -> bool:
    if column_strings(table, column, where).null_count < table.num_rows:
        return False
    warnings.warn(f"{where}: no row has a label in column {column!r}; texts are read alone", InputWarning, stacklevel=2)
    return True


def filled_strings(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    """A column as strings.

    Raises:
        InputError: there is no such column, or a cell is no text, or empty.
    """
    strings = column_strings(table, name, where)
    refuse_nulls(strings, name, where)
    return strings


def refuse_nulls(column: pa.ChunkedArray, name: str, where: str) -> None:
    """Refuse a column with empty cells, naming the first of their rows."""
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py() + 1
        more = f" ({column.null_count} rows have none)" if column.null_count > 1 else ""
        raise InputError(f"{where}, row {row}: column {name!r} is empty{more}; fill it or drop the row")


def column_strings(table: pa.Table, name: str, where: str, *, role: str = "rows wanted") -> pa.ChunkedArray:
    """A column as strings, by its name; null where a cell is empty.

    Raises:
        InputError: there is no such column, or a cell of it is no text; ``where`` names the table.
    """
    place = table.column_names.index(_column(table, name, role, where))
    return as_strings(table.schema.field(place), table.column(place), where)


def _column(table: pa.Table, name: str | None, role: str, where: str) -> str:
    own = table.column_names
    if name is None:
        raise InputError(f"{where}: which column is the {role}? It has {', '.join(own)}; say --{role}")
    if name not in own:
        raise InputError(f"{where}: no column {name!r} for the {role}; {nearest_name(name, own)}")
    if own.count(name) > 1:
        raise InputError(f"{where}: has {own.count(name)} columns {name!r}, and one is the {role}; rename the others")
    return name
