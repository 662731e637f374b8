"""What the LLM is asked: completion and chat forms of "one more row" and of "the same in other words". Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jinja2 import Environment, StrictUndefined

from cuvee.corpus import Corpus
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.protocol import Slot

EXAMPLES_SHOWN = 4
"""Seed examples in a prompt, or all of the label if it has fewer."""
SLOTS_A_ROTATION = 4
"""Neighbouring slots that see the same seed examples, so that an endpoint can reuse the prompt's prefix."""

_JINJA = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)

# The topic comes after the seed examples, as a list of its own: in the headline ("about tennis") half as many
# rows of a small model are about it, and behind the examples the prompts of all topics share a prefix.
_COMPLETION = _JINJA.from_string("""\
A list of {{ label }} {{ describe }}:
{% for example in examples %}
{{ loop.index }}. {{ example }}
{% endfor %}
{% if topic %}

More {{ label }} {{ describe }}, all about {{ topic }}:
1.
{%- else %}
{{ examples | length + 1 }}.
{%- endif %}
""")

_CHAT_SYSTEM = _JINJA.from_string("""\
You write {{ describe }} for a data set. Answer with one new text alone: no number, no quotes, no comment.""")

_CHAT_USER = _JINJA.from_string("""\
These {{ describe }} are of the kind "{{ label }}":
{% for example in examples %}
- {{ example }}
{% endfor %}
Write one more of the kind "{{ label }}"{{ ", about " ~ topic if topic }}. It must differ from those above.""")

REWRITINGS = (
    ("Rain delays opening of new city bridge", "Wet weather holds up launch of bridge in city"),
    ("Company hires 200 workers for its northern plant", "Northern factory takes on 200 new staff"),
    ("Singer cancels tour after throat operation", "Throat surgery forces singer to call off tour"),
    ("Schools to get more money for books", "Extra cash for books promised to schools"),
    ("I really enjoyed the soup, but it was too expensive.", "The soup cost too much, though it tasted great."),
    ("How do I change the password of my account?", "What are the steps to set a new account password?"),
)
"""Pairs that show what rewriting means; written for this purpose."""

_PARAPHRASE_COMPLETION = _JINJA.from_string("""\
Each text is rewritten in other words with the same meaning.
{% for original, rewritten in pairs %}

Original: {{ original }}
Rewritten: {{ rewritten }}
{% endfor %}

Original: {{ text }}
Rewritten:""")

_PARAPHRASE_SYSTEM = _JINJA.from_string("""\
You rewrite {{ describe }} in other words with the same meaning. Answer with the rewritten text alone.""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request, with the example texts it shows and the ids of the seed examples behind them."""

    request: Request
    seed_ids: tuple[str, ...]
    shown: tuple[str, ...]


class PromptWriter:
    """Writes the question for each slot and attempt.

    Args:
        train: where the seed examples come from; every label of a slot has at least one row in it.
        describe: what the texts are, in the plural ("news headlines").
        api: the form to write.
        sampling: for slots without a temperature of their own.
        seed: of the choice of seed examples and of every request.
    """

    def __init__(self, train: Corpus, *, describe: str, api: Api, sampling: Sampling, seed: int) -> None:
        self._train = train
        self._rows: Mapping[str, list[int]] = {
            label: [i for i, target in enumerate(train.targets) if target == label] for label in train.labels
        }
        self._describe = describe
        self._api = api
        self._sampling = sampling
        self._seed = seed

    def ask_for_row(self, slot: Slot, attempt: int) -> Question:
        """Ask for a new row of the slot's label, and topic if it has one."""
        rows = self._choose_rows(slot, attempt)
        examples = [_one_line(self._train.texts[i]) for i in rows]
        words = {
            "label": _readable(slot.label),
            "describe": self._describe,
            "topic": _readable(slot.topic) if slot.topic is not None else None,
            "examples": examples,
        }
        if self._api == "completions":
            request = self._request(slot, attempt, prompt=_COMPLETION.render(words))
        else:
            system, user = _CHAT_SYSTEM.render(words), _CHAT_USER.render(words)
            request = self._request(slot, attempt, messages=(("system", system), ("user", user)))
        return Question(request=request, seed_ids=tuple(self._train.ids[i] for i in rows), shown=tuple(examples))

    def ask_for_paraphrase(self, slot: Slot, attempt: int, source: str, seed_ids: Sequence[str]) -> Question:
        """Ask for ``source`` in other words; ``seed_ids`` are those of the source."""
        text = _one_line(source)
        if self._api == "completions":
            prompt = _PARAPHRASE_COMPLETION.render(pairs=REWRITINGS, text=text)
            request = self._request(slot, attempt, prompt=prompt)
            shown = tuple(t for pair in REWRITINGS for t in pair)
        else:
            system = _PARAPHRASE_SYSTEM.render(describe=self._describe)
            request = self._request(slot, attempt, messages=(("system", system), ("user", text)))
            shown = ()
        return Question(request=request, seed_ids=tuple(seed_ids), shown=shown)

    def _choose_rows(self, slot: Slot, attempt: int) -> list[int]:
        # a slot whose first answer was no use sees other examples, or the same in another order: at a low
        # temperature the same prompt would give the same answer again
        rotation = [slot.number // SLOTS_A_ROTATION, *([slot.number, attempt] if attempt else [])]
        rng = derive_rng(self._seed, "seed-examples", slot.label, slot.block, *rotation)
        rows = self._rows[slot.label]
        return [rows[i] for i in rng.permutation(len(rows))[:EXAMPLES_SHOWN]]

    def _request(
        self, slot: Slot, attempt: int, *, prompt: str | None = None, messages: tuple[tuple[str, str], ...] = ()
    ) -> Request:
        sampling = self._sampling
        if slot.temperature is not None:
            sampling = replace(sampling, temperature=slot.temperature)
        if prompt is not None and not sampling.stop:
            sampling = replace(sampling, stop=("\n",))
        # 31 bits: the widest seed that every server takes
        seed = derive_seed(self._seed, "answer", slot.key, attempt) & 0x7FFFFFFF
        return Request(messages=messages, prompt=prompt, sampling=sampling, seed=seed, replicate=attempt)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _readable(name: str) -> str:
    return " ".join(name.replace("_", " ").split())
