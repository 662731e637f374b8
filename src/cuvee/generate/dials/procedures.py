"""Dials of how rows are written: sampling, forbidden words, drafts that are refined, paraphrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from typing_extensions import override

from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.dials.slots import Avoid, Draft, Part, PartsDial, Slot, slot_key, whole_levels, whole_number

# A number, or the two ends of a range from which every row draws its own.
Drawn = int | float | Sequence[int | float]
# What a level of *sampling* may set, and from where to where.
LIMITS = {"temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0)}


Spread = tuple[float, float]  # A range of one sampling parameter; both ends are the same where it is fixed


class SamplingDial(PartsDial):
    """A level draws all its rows in one way; levels share no row.

    A level is a temperature, or a mapping of ``temperature``, ``top_p`` and ``min_p``, each a number or a range
    ``[low, high]`` from which each row draws its own value. What a level leaves out is the study's.
    Temperatures alone are put in rising order; as soon as one level is a mapping, the levels stand in the order
    given: list them from the least diverse. A mapping is called by its ``name``, or by what it sets.

    Args:
        levels: temperatures from 0 to 100, or mappings; top_p and min_p lie from 0 to 1, top_p above 0.
        seed: of the values drawn from ranges.

    Raises:
        ConfigError: a value is out of its range, or a level sets nothing or something else.
    """

    name = "sampling"

    def __init__(self, *, levels: Sequence[int | float | Mapping[str, str | Drawn]], seed: int = 0) -> None:
        read = [self._read_level(level) for level in levels]
        if not any(isinstance(level, Mapping) for level in levels):
            read.sort(key=lambda level: level[1]["temperature"][0])
        super().__init__([name for name, _ in read])
        self._spreads = dict(read)
        self._seed = seed

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """The rows of all labels, each with the values that it draws."""
        made = super().slots(level, labels, block, rows_per_label)
        drawn = [[self._draw(slot.key, parameter, level) for parameter in LIMITS] for slot in made]
        return tuple(
            replace(slot, temperature=temperature, top_p=top_p, min_p=min_p)
            for slot, (temperature, top_p, min_p) in zip(made, drawn, strict=True)
        )

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [((level,), {})]

    def _draw(self, key: str, parameter: str, level: str) -> float | None:
        if parameter not in self._spreads[level]:
            return None
        low, high = self._spreads[level][parameter]
        if low == high:
            return low
        # four decimals: no server tells values apart that are nearer than that
        return round(float(derive_rng(self._seed, "sampling", parameter, key).uniform(low, high)), 4)

    def _read_level(self, level: int | float | Mapping[str, str | Drawn]) -> tuple[str, dict[str, Spread]]:
        if not isinstance(level, Mapping):
            return f"{level:g}", {"temperature": read_spread(self.name, "temperature", level)}
        spreads = {key: read_spread(self.name, key, level[key]) for key in LIMITS if key in level}
        if not spreads or level.keys() - {*LIMITS, "name"}:
            raise ConfigError(f"dial 'sampling': level {dict(level)!r} must set some of {', '.join(LIMITS)}, and name")
        shown = (f"{key} {'-'.join(f'{end:g}' for end in dict.fromkeys(ends))}" for key, ends in spreads.items())
        return str(level.get("name") or ", ".join(shown)), spreads


def read_spread(dial: str, parameter: str, value: str | Drawn) -> Spread:
    """A sampling parameter of a level, fixed or a range.

    Raises:
        ConfigError: it is out of range.
    """
    least, most = LIMITS[parameter]
    ends = [float(end) for end in (value if isinstance(value, list | tuple) else (value, value))]
    above = parameter == "top_p"
    if len(ends) != 2 or not least <= ends[0] <= ends[1] <= most or (above and ends[0] == least):
        raise ConfigError(
            f"dial {dial!r}: {parameter} {value!r} must be a number {'above' if above else 'from'} {least:g} "
            f"{'and at most' if above else 'to'} {most:g}, or a range [low, high] of them"
        )
    return ends[0], ends[1]


class BaseThenRefineDial(PartsDial):
    """Level t drafts every row at temperature t and has the LLM refine the draft at the study's own temperature.

    The draft brings the variety, the refinement the form: it keeps what the draft says (BARE, arXiv 2502.01697).
    BARE drafts with a base model and refines with its instruct-tuned sibling: name the first as ``draft_model``, and
    the endpoint that serves both answers both. The draft completes a list of examples, the form that base models
    answer, and the refinement takes the endpoint's form. Levels share no row.

    Args:
        levels: temperatures of the draft, 0 or more.
        draft: form of the draft's request; ``chat`` is for endpoints that serve no completions.
        draft_model: the model at the same endpoint that writes the drafts; None is the model of the rows.

    Raises:
        ConfigError: a temperature is out of range.
    """

    name = "base_then_refine"

    def __init__(
        self, *, levels: Sequence[int | float], draft: Literal["completions", "chat"] = "completions",
        draft_model: str | None = None,
    ) -> None:  # fmt: skip
        hot = sorted(read_spread(self.name, "temperature", level)[0] for level in levels)
        super().__init__([f"{t:g}" for t in hot])
        self._drafts = {f"{t:g}": Draft(temperature=t, api=draft, model=draft_model) for t in hot}

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [((level,), {"draft": self._drafts[level]})]


class TabooDial(PartsDial):
    """Level k spreads each label's rows of a block over k rounds (arXiv 2401.06643).

    The prompts of a round forbid the ``words`` most characteristic words of its label in each earlier
    round, and an answer that uses one is asked for again. A round's words are found in its first
    ``read`` rows alone, so they are the same at every level, and the rounds of level 2, and their
    rows, are among those of level 4 (unless a row equals one before it at one of these levels only).

    Args:
        levels: numbers of rounds; level 1 forbids nothing.
        words: words that a round adds to those forbidden in its label.
        read: rows of a round, a label, that its words are found in; no round may have fewer.

    Raises:
        ConfigError: a level, ``words`` or ``read`` is no whole number above 0.
    """

    name = "taboo"

    def __init__(self, *, levels: Sequence[int | float], words: int = 3, read: int = 4) -> None:
        self._words = whole_number(self.name, "words", words)
        self._read = whole_number(self.name, "read", read)
        counts = whole_levels(self.name, levels)
        most = max(counts, default=1)
        super().__init__([str(k) for k in counts], most * self._read if most > 1 else 1)

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """The slots of one round after the other."""
        k, made = int(level), super().slots(level, labels, block, rows_per_label)
        read = [
            tuple(slot_key(label, block, f"r{number}", place) for place in range(self._read) for label in labels)
            for number in range(k)
        ]
        avoid = [None, *(Avoid(rounds=tuple(read[:number]), words=self._words) for number in range(1, k))]
        return tuple(replace(s, avoid=avoid[number]) for number in range(k) for s in made if s.order % k == number)

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [((f"r{number}",), {}) for number in range(int(level))]


class ParaphraseDial(PartsDial):
    """Level m_p replaces the last m_p x r rows of each label and block by m_p paraphrases of its first r rows.

    So m_r = m_p x r rows are replaced (arXiv 2506.19262). The base has rows_per_label rows a label and block and is
    the same for all levels; m_p = 0 is the plain base. Paraphrase p of source s takes the place of row
    rows_per_label - 1 - (p x r + s), so the paraphrases of m_p = 2 are among those of m_p = 5, and where one could not
    be made the level keeps the base row. Each paraphrase is compared with the base and with paraphrases that every
    level holding it holds too, so adding or dropping a level changes no row of another.

    Args:
        levels: numbers of paraphrases of each source; the most are the least diverse.
        sources: r, the rows of each label and block that are paraphrased.

    Raises:
        ConfigError: a level is no whole number, or ``sources`` is below 1.
    """

    name = "paraphrase"

    def __init__(self, *, levels: Sequence[int | float], sources: int = 2) -> None:
        self._sources = whole_number(self.name, "sources", sources)
        counts = whole_levels(self.name, levels, least=0)[::-1]
        super().__init__([str(m) for m in counts], self._sources * (1 + max(counts, default=0)))

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """The whole base, then the paraphrases."""
        made = []
        for number in range(int(level) * self._sources):
            p, source = divmod(number, self._sources)
            replaced = rows_per_label - 1 - number
            for label in labels:
                parent, substitute = (slot_key(label, block, row) for row in (source, replaced))
                made.append(
                    Slot(
                        key=slot_key(label, block, source, f"p{p}"), label=label, block=block, parent=parent,
                        substitute=substitute, number=p, order=replaced,
                    )
                )  # fmt: skip
        return (*super().slots(level, labels, block, rows_per_label), *made)

    @override
    def parts(self, level: str, label: str) -> Sequence[Part]:
        return [((), {})]
