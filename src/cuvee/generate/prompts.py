"""What the LLM is asked, in completion and chat form; the texts are Jinja files that a user can print and override."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from cuvee.corpus import Corpus, split_tokens
from cuvee.corpus.forms import render_turns, split_turns
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.generate import parsing
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.slots import Slot, shared_request
from cuvee.inputs import read_text
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment


EXAMPLES_SHOWN = 4  # seed examples in a prompt, or all of the label if it has fewer
# Neighbouring slots that see the same seed examples, so that an endpoint can reuse the prompt's prefix.
SLOTS_A_ROTATION = 4
# Tokens that a pair is given at least, and at most on account of the longest pair of the training rows.
LEAST_ROOM, MOST_ROOM = 128, 1024
_CHARACTERS_A_TOKEN = 2
# Share of the training rows of a label that have several lines, from which on new rows may have them too.
LINES_SHARE = 0.1

Step = Literal["row", "paraphrase", "draft", "refinement"]
_NUMBER_TOKENS = 4  # tokens of a number and a line break in a list
_LAST_NUMBER = re.compile(r"(\d+)\.\s*\Z")
_SENTENCE = re.compile(r"(?<=[.:;?!])\s")
_PLACEHOLDER = re.compile(r"\[[a-z_]+\]|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request, with the example texts it shows and the ids of the seed examples behind them.

    ``shown_targets`` are the other sides of the examples where it asks for pairs. ``source`` is the text that it asks
    to rewrite, ``avoided`` the words that it forbids. ``place`` is that of the wanted row in an answer of several; None
    is an answer of one.
    """

    request: Request
    step: Step = "row"
    place: int | None = None
    seed_ids: tuple[str, ...]
    shown: tuple[str, ...]
    shown_targets: tuple[str, ...] = ()
    source: str | None = None
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSpec:
    """What is written, whatever a dial varies, and in which words it is asked for.

    Args:
        sampling: of every request; a dial may set the temperature. Pairs are given the tokens that the longest of the
            training rows needs, if max_tokens is less.
        describe: what the texts are, in the plural, for the prompts ("news headlines").
        seed: of seed examples and requests.
        kind: of writing; None is the one that fits the task: ``label``, ``query``, and ``question`` where rows have
            contexts, else ``instruction``.
        sources: passages or contexts to write about; None is those of the training rows.
        prompts: the wording (:func:`load_prompts`); None is the built-in one.
        rows_per_request: rows of a label, or queries of a passage, that a first request asks for at once, of those that
            differ in nothing but their number; not of pairs, drafts and paraphrases. They are one group: what one
            answer says together is no independent evidence.
    """

    sampling: Sampling = field(default_factory=Sampling)
    describe: str = "examples"
    seed: int = 0
    kind: parsing.Kind | None = None
    sources: Sequence[str] | None = None
    prompts: PromptSet | None = None
    rows_per_request: int = 1

    def strata(self, train: Corpus) -> Mapping[str, parsing.Stratum]:
        """What a dial deals rows to, by name.

        Raises:
            ConfigError: the kind does not fit the task, or there is nothing to write about.
        """
        return parsing.find_strata(train, parsing.choose_kind(train, self.kind, self.sources), self.sources)


class PromptWriter:
    """Writes the question for each slot and attempt.

    Args:
        train: where the seed examples come from; every stratum of a slot has at least one row in it.
        spec: what is written.
        api: the form to write.

    Raises:
        ConfigError: as :meth:`WritingSpec.strata`; or several rows are asked for in a wording of one's own that does
            not say how many.
    """

    def __init__(self, train: Corpus, spec: WritingSpec, api: Api) -> None:
        kind = parsing.choose_kind(train, spec.kind, spec.sources)
        self._train, self._spec, self._api = train, spec, api
        self.writing: parsing.Writing = parsing.WRITINGS[kind]
        self.rows = rows = 1 if self.writing.is_single else spec.rows_per_request
        self.strata: Mapping[str, parsing.Stratum] = parsing.find_strata(train, kind, spec.sources)
        self._places = {id_: i for i, id_ in enumerate(train.ids)}
        self._prompts = load_prompts() if spec.prompts is None else spec.prompts
        self._schema = parsing.pair_schema(self.writing) if self.writing.pair else None
        long = sum("\n" in text.strip() for text in train.texts)
        self.lines = self.writing.kind == "label" and long >= LINES_SHARE * len(train)
        """Whether rows may have several lines, as real ones do."""
        self._plain = parsing.block if self.lines else parsing.one_line
        self._room = _find_room(train) if self.writing.is_single or self.lines else 0
        self._wordings: dict[tuple[object, ...], tuple[str, ...]] = {}
        files = self._files("row", api)
        if self.rows > 1 and not any("count" in file.source for file in files):
            raise ConfigError(f"{files[-1].place}: rows_per_request {rows} needs {{{{ count }}}} in it, or make it 1")
        self._runs: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def ask(
        self, slot: Slot, attempt: int, avoided: Sequence[str] = (), *, step: Step = "row", source: str = "",
        seed_ids: Sequence[str] = (),
    ) -> Question:  # fmt: skip
        """Ask for a slot's row: a new one of its stratum, or its draft, or for a text in other words or in good form.

        Args:
            slot: with its topic and attributes.
            attempt: answers to the slot before.
            avoided: words that a new row or a draft may not use.
            step: what is asked for.
            source: the text that is paraphrased, or the draft that is refined.
            seed_ids: the examples behind it, shown with a draft in chat form.
        """
        label = parsing.readable(slot.label) if self.writing.kind == "label" else ""
        several = step == "row" and attempt == 0 and shared_request(slot, self.rows) is not None
        count, describe = self.rows if several else 1, self._spec.describe
        values: dict[str, Value] = {"label": label, "describe": describe, "count": count}
        shown: tuple[str, ...]
        if step in ("row", "draft"):
            rows = self._choose_rows(slot, attempt)
            seed_ids = [self._train.ids[i] for i in rows]
            own = self._train.targets if self.writing.kind == "reply" else self._train.texts
            shown = tuple(self._plain(own[i]) for i in rows)
            values |= {
                "topic": parsing.readable(slot.topic) if slot.topic is not None else None,
                "attributes": [(parsing.readable(name), parsing.readable(value)) for name, value in slot.attributes],
                "avoided": list(avoided),
                "examples": list(shown) if self.writing.kind == "label" else [self._example(i) for i in rows],
            }
            if self.writing.source is not None:
                values[self.writing.source] = parsing.block(self.strata[slot.label].source or "")
        else:
            rows, (file, *_) = [], self._files(step, self._api)
            examples = [self._plain(self._train.texts[self._places[i]]) for i in seed_ids if step == "refinement"]
            values |= {"examples": examples, "text": self._plain(source)}
            shown = file.pairs if self._api == "completions" else tuple(examples)
        return Question(
            request=self._request(slot, attempt, step, values),
            step=step,
            place=slot.number % self.rows if several else None,
            seed_ids=tuple(seed_ids),
            shown=shown,
            shown_targets=tuple(self._train.targets[i] for i in rows) if self.writing.is_single else (),
            source=source or None,
            avoided=tuple(avoided),
        )

    def hash_wording(self, slot: Slot, question: Question) -> str:
        """SHA-256 of the wording of a question that was asked for a slot."""
        return hash_value([*self._wording(slot, question), *([self._schema] if question.request.schema else [])])

    def wording_runs(self, slot: Slot, question: Question) -> tuple[str, ...]:
        """Stretches and sentences of the wording between what is given, as words, of ``ECHO_WORDS`` words or more."""
        known = (slot.label, wording := self._wording(slot, question))
        if known not in self._runs:
            named = (text.replace("[label]", parsing.readable(slot.label)) for text in wording)
            runs = [run for text in named for run in _PLACEHOLDER.split(text)]
            sentences = [sentence for run in runs for sentence in _SENTENCE.split(run)]
            normal = (split_tokens(part) for part in (*runs, *sentences))
            self._runs[known] = tuple(dict.fromkeys(" ".join(run) for run in normal if len(run) >= parsing.ECHO_WORDS))
        return self._runs[known]

    def _wording(self, slot: Slot, question: Question) -> tuple[str, ...]:
        """The prompts of a question, with a placeholder for all that is given but what texts are called."""
        several, draft = question.place is not None, slot.draft if question.step == "draft" else None
        known = (question.step, several, slot.topic is None, len(slot.attributes), bool(question.avoided), draft)
        if known not in self._wordings:
            given: dict[str, Value] = {"describe": self._spec.describe, "count": self.rows if several else 1}
            given |= {"topic": None} if slot.topic is None else {}
            given |= {"attributes": [("[name]", "[value]")] * len(slot.attributes)}
            given |= {} if question.avoided else {"avoided": []}
            files = self._files(question.step, self._api if draft is None else draft.api)
            self._wordings[known] = tuple(file.render(file.placeholders() | given) for file in files)
        return self._wordings[known]

    def _files(self, step: Step, api: Api) -> list[PromptFile]:
        """The prompt of a step, or its two messages."""
        name = {"paraphrase": "paraphrase", "refinement": "refine"}.get(step, self.writing.kind)
        forms = ("completion",) if api == "completions" else ("chat_system", "chat_user")
        return [self._prompts.file(f"{name}_{form}") for form in forms]

    def _example(self, row: int) -> dict[str, str]:
        """An example as the prompts of a kind without labels take it: a row with the names of its parts."""
        writing, train = self.writing, self._train
        if writing.source == "conversation":
            turns, reply = split_turns(train.prompts[row]), parsing.block(train.targets[row])
            if writing.kind == "reply":
                return {"conversation": render_turns(turns), "reply": reply}
            return {"conversation": render_turns(turns[:-1]), "user": turns[-1][1], "reply": reply}
        text = train.texts[row]
        sides = {
            writing.text: parsing.block(text) if writing.lines else parsing.one_line(text),
            writing.target: parsing.block(train.targets[row]),
        }
        if writing.source is not None and writing.source not in sides:
            sides = {writing.source: parsing.block(train.contexts[row] or ""), **sides}
        return sides

    def _choose_rows(self, slot: Slot, attempt: int) -> list[int]:
        # a slot whose first answer was no use sees other examples, or the same in another order: at a low
        # temperature the same prompt would give the same answer again
        turn = slot.number // self.rows // max(1, SLOTS_A_ROTATION // self.rows)
        rotation = [turn, *([slot.number, attempt] if attempt else [])]
        rng = derive_rng(self._spec.seed, "seed-examples", slot.label, slot.block, *rotation)
        rows = self.strata[slot.label].rows
        if not slot.examples:
            return [rows[i] for i in rng.permutation(len(rows))[:EXAMPLES_SHOWN]]
        order = derive_rng(self._spec.seed, "example-order", slot.label, slot.block).permutation(len(rows))
        return [rows[order[slot.examples[i]]] for i in rng.permutation(len(slot.examples))]

    def _request(self, slot: Slot, attempt: int, step: Step, values: Mapping[str, Value]) -> Request:
        draft, given = slot.draft if step == "draft" else None, self._spec.sampling
        api, model = (self._api, None) if draft is None else (draft.api, draft.model)
        wanted = slot.temperature if draft is None else draft.temperature
        sampling = replace(
            given,
            temperature=wanted if wanted is not None else given.temperature,
            top_p=slot.top_p if slot.top_p is not None else given.top_p,
            min_p=slot.min_p if slot.min_p is not None else given.min_p,
            max_tokens=max(given.max_tokens, self._room),
        )
        prompts = [file.render(values) for file in self._files(step, api)]
        pair = step in ("row", "draft") and self.writing.pair
        count = values["count"]
        key: list[str | int] = [slot.key, attempt]
        if isinstance(count, int) and count > 1:  # the same request for all rows that it is asked for
            key = ["rows", *(shared_request(slot, count) or ())]
            sampling = replace(sampling, max_tokens=count * (sampling.max_tokens + _NUMBER_TOKENS))
        # 31 bits: the widest seed that every server takes
        seed = derive_seed(self._spec.seed, "answer", *key) & 0x7FFFFFFF
        if api == "completions":
            (prompt,) = prompts
            ends: tuple[str, ...] = ("\n",)
            if isinstance(count, int) and count > 1:
                first = _LAST_NUMBER.search(prompt)
                ends = ("\n\n",) if first is None else (f"\n{int(first[1]) + count}.",)
            elif self.lines:  # a text ends before the next number, or the next head, of the built-in prompts
                examples = values.get("examples")
                shown = len(examples) if isinstance(examples, list) else 0
                heads = {"paraphrase": "\nOriginal:", "refinement": "\nDraft:"}
                ends = (heads[step],) if step in heads else ("\n2.", f"\n{shown + 2}.")
            ends = self._stop if pair or (step == "row" and self.writing.is_single) else ends
            sampling = sampling if sampling.stop else replace(sampling, stop=ends)
            return Request(prompt=prompt, sampling=sampling, seed=seed, replicate=attempt, model=model)
        messages = tuple(zip(("system", "user"), prompts, strict=True))
        schema = self._schema if pair else None
        return Request(messages=messages, sampling=sampling, seed=seed, replicate=attempt, schema=schema, model=model)

    @property
    def _stop(self) -> tuple[str, ...]:
        """Where a pair ends: before the line between pairs, or the head of another pair."""
        heads = [name for name in (self.writing.source, self.writing.text) if name is not None]
        return (f"\n{parsing.SEPARATOR}", *(f"\n{name.capitalize()}:" for name in heads))


def _find_room(train: Corpus) -> int:
    """Tokens that pairs are given: enough for the longest pair of the training rows and what stands around it."""
    longest = max((len(t) + len(y) for t, y in zip(train.texts, train.targets, strict=True)), default=0)
    return min(MOST_ROOM, max(LEAST_ROOM, longest // _CHARACTERS_A_TOKEN + 32))


# What a prompt can be given under a name.
Value: TypeAlias = str | int | Sequence[str] | Sequence[tuple[str, str]] | Sequence[Mapping[str, str]] | None

SUFFIX = ".jinja"
BUILT_IN = Path(__file__).with_name("prompt_files")
_HEADER = re.compile(r"\{#\s*(.*?)\s*Variables:\s*(.*?)\.(?:\s*Needs:\s*(.*?)\.)?\s*#\}", flags=re.DOTALL)
_PLACEHOLDERS: Mapping[str, Value] = {"attributes": [("[name]", "[value]")], "avoided": ["[word]"], "count": 3}
# What may be missing from a prompt, as it is given then.
_ABSENT: Mapping[str, Value] = {"topic": None, "attributes": [], "avoided": [], "label": ""}


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """One prompt.

    ``purpose`` says what it is for, ``variables`` what it may use (``examples.query`` is a field of each of
    ``examples``), ``needed`` what it must use. ``source`` is the text of the file, ``place`` where it was read.
    """

    name: str
    purpose: str
    variables: tuple[str, ...]
    needed: tuple[str, ...]
    source: str
    place: str

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' own names, without fields."""
        return tuple(dict.fromkeys(variable.partition(".")[0] for variable in self.variables))

    def placeholders(self) -> dict[str, Value]:
        """A value for each variable that only shows where it stands."""
        made: dict[str, Value] = {}
        for name in self.names:
            fields = [v.partition(".")[2] for v in self.variables if v.startswith(f"{name}.")]
            some: Value = [{field: f"[{field}]" for field in fields}] if fields else None
            made[name] = some or _PLACEHOLDERS.get(name) or ([f"[{name}]"] if name == "examples" else f"[{name}]")
        return made

    @cached_property
    def _template(self) -> Template:
        from jinja2 import TemplateSyntaxError

        try:
            return _environment().from_string(self.source)
        except TemplateSyntaxError as exc:
            raise ConfigError(f"{self.place}, line {exc.lineno}: {exc.message}") from exc

    def render(self, values: Mapping[str, Value]) -> str:
        """The prompt with these values.

        Raises:
            ConfigError: it cannot be made with them.
        """
        with self._explained():
            return self._template.render({name: values[name] for name in self.names if name in values})

    @cached_property
    def pairs(self) -> tuple[str, ...]:
        """Both sides of the ``pairs`` that it sets to show what is meant; none where it sets none."""
        with self._explained():
            found = getattr(self._template.make_module(self.placeholders()), "pairs", ())
        return tuple(str(side) for pair in found for side in pair)

    def check(self) -> None:
        """Refuse a prompt that could not be asked.

        Raises:
            ConfigError: a syntax error, an unknown variable, one missing that it needs, or nothing to read.
        """
        from jinja2 import meta

        environment = self._template.environment
        used = meta.find_undeclared_variables(environment.parse(self.source)) - set(environment.globals)
        for name in sorted(used - set(self.names)):
            raise ConfigError(f"{self.place}: unknown variable {name!r}; {nearest_name(name, self.variables)}")
        for name in self.needed:
            if name not in used:
                raise ConfigError(f"{self.place}: it does not use {name!r}, which this prompt is about")
        values = self.placeholders()
        for given in (values, {name: _ABSENT.get(name, value) for name, value in values.items()}):
            if not self.render(given).strip():
                raise ConfigError(f"{self.place}: it makes an empty prompt")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong while it is made, as one line that names it."""
        from jinja2 import TemplateError

        wrong = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
        try:
            yield
        except (TemplateError, *wrong) as exc:
            what = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise ConfigError(f"{self.place}: {what}; its variables: {', '.join(self.variables)}") from exc


class PromptSet:
    """Every prompt by its name, such as ``label_chat_user``: the built-in ones, some of them overridden.

    Args:
        files: all of them.
    """

    def __init__(self, files: Mapping[str, PromptFile]) -> None:
        self.files = dict(sorted(files.items()))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all texts: what a caller's cache of generated rows must depend on."""
        return hash_value({name: file.source for name, file in self.files.items()})

    def file(self, name: str) -> PromptFile:
        """One prompt.

        Raises:
            ConfigError: there is none of this name.
        """
        if name not in self.files:
            raise ConfigError(f"no prompt is called {name!r}; {nearest_name(name, self.files)}")
        return self.files[name]


def load_prompts(folder: str | Path | None = None) -> PromptSet:
    """The built-in prompts, and instead of them those of the same name in a folder.

    Prompts run in Jinja's sandbox. Every one of the folder is rendered once with placeholders.

    Raises:
        ConfigError: no such folder, or no prompts in it; a file whose name is no prompt's; a prompt that is not UTF-8,
            has a syntax error (with its line), uses an unknown variable, or lacks one that it needs.
    """
    if folder is None:
        return _built_in()
    place, files = Path(folder), dict(_built_in().files)
    if not place.is_dir():
        raise ConfigError(f"prompts {str(folder)!r}: no such folder; cuvee prompts --out DIR writes one")
    found = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    if not found:
        raise ConfigError(f"prompts {str(folder)!r}: the folder is empty; cuvee prompts NAME prints a prompt to copy")
    for path in found:
        name = path.name.removesuffix(SUFFIX)
        if path.suffix != SUFFIX or name not in files:
            known = [f"{name}{SUFFIX}" for name in files]
            raise ConfigError(f"{path}: no prompt has this name; {nearest_name(path.name, known)}")
        files[name] = replace(files[name], source=read_text(path, ConfigError), place=str(path))
        files[name].check()
    return PromptSet(files)


@lru_cache(maxsize=1)
def _built_in() -> PromptSet:
    return PromptSet({path.stem: read_prompt(path) for path in sorted(BUILT_IN.glob(f"*{SUFFIX}"))})


@lru_cache(maxsize=64)
def read_prompt(path: Path) -> PromptFile:
    """A built-in prompt, which begins with what it is for and its variables."""
    source = read_text(path, ConfigError)
    header = _HEADER.match(source)
    assert header is not None, "a built-in prompt begins with what it is for and its variables"
    purpose, variables, needed = (" ".join((part or "").split()) for part in header.groups())
    return PromptFile(
        name=path.stem,
        purpose=purpose,
        variables=tuple(name for name in variables.split(", ") if name),
        needed=tuple(name for name in needed.split(", ") if name),
        source=source,
        place=path.name,
    )


# --- Jinja, imported when the first prompt is made ------------------------------------------------
@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    made = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    # Jinja's own tojson writes < > & ' as escapes for web pages, which an LLM would copy
    made.filters["json"] = partial(json.dumps, ensure_ascii=False)
    return made
