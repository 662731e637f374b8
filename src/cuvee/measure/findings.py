"""Findings: what the numbers of a corpus mean, in plain sentences, worst first, each with its yardstick and a remedy.

Where real rows are given, a number is held against the real rows' own: the same number of samples of them of the same
size. Else against a default that the rule states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text
from cuvee.defects import DegenerateReason, degenerate_rows
from cuvee.fingerprint import derive_rng
from cuvee.measure import lexical, semantic, surface
from cuvee.measure.subject import GivenVectors, PointSubject, Subject
from cuvee.probe import fit_probe
from cuvee.records import Estimate, Finding
from cuvee.similarity import spectrum, vendi_score

MOST = 7
DRAWS, ROWS = 10, 1_000  # samples of the real rows, and the most rows of each
DEVIATIONS = 4.0  # of the samples' values, beyond their mean: no chance where a dozen rules look
_FEWEST = 20  # rows of which a sample says anything
_LABEL_ROWS = 200  # of a label that its diversity is computed on, at most
_WORDS, _SHOWN = 1_000, 4
_L2 = 10.0  # of the regression on words
Measure = Callable[[Subject], Estimate | None]
REAL, STATED = "the real rows, resampled", "stated default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A number of the corpus and of the real rows at equal rows.

    ``value`` is of all rows of the corpus, ``equal`` the mean over its samples, ``real`` that over samples of the real
    rows and ``spread`` their standard deviation; both None without real rows.
    """

    value: float
    equal: float
    real: float | None = None
    spread: float = 0.0

    def exceeds(self, least: float) -> bool:
        """Whether it is above the real rows by ``least`` and by chance; without real rows above ``least`` alone."""
        if self.real is None:
            return self.value > least
        return self.equal - self.real > max(least, DEVIATIONS * self.spread)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What rules look at: the subject, its numbers, and samples of both sides at equal rows."""

    subject: Subject
    values: Mapping[str, Estimate]

    @cached_property
    def against(self) -> Subject | None:
        """The real rows as a subject of their own; None where there are too few, or they are what is measured."""
        subject = self.subject
        if subject.against is None or subject.is_real or len(subject.against) < 2 * _FEWEST:
            return None
        encoder = subject.encoder
        if encoder is not None and (subject.given is None or subject.given.against is not None):
            encoder = GivenVectors(encoder.name, subject.against_unit)
        return PointSubject(corpus=subject.against, encoder=encoder, seed=subject.seed)

    @cached_property
    def samples(self) -> tuple[list[Subject], list[Subject]]:
        """Samples of the corpus and of the real rows, all of the same number of rows."""
        subject, theirs = self.subject, self.against
        if theirs is None:
            return [], []
        encoder = None if subject.encoder is None else GivenVectors(subject.encoder.name, subject.unit)
        rows = min(subject.n, theirs.n // 2, ROWS)

        def draw(side: Subject, stream: str) -> list[Subject]:
            rng, times = derive_rng(subject.seed, "findings", stream), 1 if side.n == rows else DRAWS
            return [side.take(np.sort(rng.choice(side.n, rows, replace=False))) for _ in range(times)]

        return draw(PointSubject(corpus=subject.corpus, encoder=encoder), "ours"), draw(theirs, "theirs")

    def compare(self, measure: Measure, value: float) -> Compared | None:
        """A number beside the real rows' own; ``value`` is that of all rows. None where it is not defined."""
        ours, theirs = ([measure(sample) for sample in side] for side in self.samples)
        if not theirs:
            return Compared(value=value, equal=value)
        if None in ours or None in theirs:
            return None
        mine, real = ([e.value for e in side if e is not None] for side in (ours, theirs))
        spread = float(np.std(real, ddof=1))
        return Compared(value=value, equal=float(np.mean(mine)), real=float(np.mean(real)), spread=spread)

    @property
    def source(self) -> str:
        """Where thresholds come from."""
        return STATED if self.against is None else REAL


@dataclass(frozen=True, slots=True)
class Hit:
    """That a rule fires: its number and yardstick, how bad it is, and the words that fill its sentence."""

    value: float
    yardstick: float | None
    severity: float
    words: Mapping[str, object]
    source: str

    def tell(self, rule: Rule, n: int) -> Finding:
        """The finding of a rule on ``n`` rows."""
        return Finding(
            id=rule.id, sentence=rule.sentence.format(n=n, **self.words), remedy=rule.remedy, value=self.value,
            yardstick=self.yardstick, source=self.source, severity=self.severity,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: what it looks at, and what it says.

    Attributes:
        id: stays the same across releases.
        about: what is fine where it does not fire.
        needs: metrics that must have been measured.
        check: finds what is wrong, worst first.
        sentence: a template of the words of the hit.
        remedy: what to do.
        compares: whether it says something only beside real rows.
        of_labels: whether it says something only of rows with labels.
    """

    id: str
    about: str
    needs: tuple[str, ...]
    check: Callable[[Evidence], Hit | None]
    sentence: str
    remedy: str
    compares: bool = False
    of_labels: bool = False


def find_findings(subject: Subject, values: Mapping[str, Estimate], *, most: int = MOST) -> tuple[Finding, ...]:
    """At most ``most`` findings, worst first; the last one says what is fine.

    Args:
        subject: what was measured.
        values: its numbers; a rule whose numbers were not measured is not tried.
    """
    evidence, bad, fine = Evidence(subject=subject, values=values), list[Finding](), list[str]()
    wrong = set[str]()
    for rule in RULES:
        possible = not (rule.compares and evidence.against is None) and all(name in values for name in rule.needs)
        if subject.is_real or not possible or (rule.of_labels and not subject.corpus.has_labels):
            continue
        hit = rule.check(evidence)
        if hit is None:
            fine += [rule.about] * (subject.n >= _FEWEST)  # of fewer rows nothing can be called fine
            continue
        wrong.add(rule.about)
        bad.append(hit.tell(rule, subject.n))
    bad.sort(key=lambda finding: -finding.severity)
    told = ", ".join(about for about in dict.fromkeys(fine) if about not in wrong)
    if not told:
        return tuple(bad[:most])
    if not bad:
        return (Finding(id="nothing-wrong", sentence=f"Nothing wrong was found: {told}.", source=evidence.source),)
    return (*bad[: most - 1], Finding(id="fine", sentence=f"Fine: {told}.", source=evidence.source))


# --- rows that say the same ---------------------------------------------------------------------------
def _percent(value: float) -> str:
    return f"{100 * value:.0f}%" if value >= 0.095 or value == 0 else f"{100 * value:.2g}%"


def _check_rate(
    name: str, measure: Measure, least: float, weight: float, do: str = "do"
) -> Callable[[Evidence], Hit | None]:
    """A fraction of rows that is too high; ``do`` is what real rows do."""

    def check(evidence: Evidence) -> Hit | None:
        estimate = evidence.values[name]
        found = evidence.compare(measure, estimate.value)
        if found is None or not found.exceeds(least):
            return None
        yard = f"a rate of up to {_percent(least)} counts as normal"
        if found.real is not None:
            yard = f"among real rows {_percent(found.real)} {do}"
        words = {"count": round(estimate.value * estimate.n), "rate": _percent(estimate.value), "yardstick": yard}
        settings = {f"set_{key}": value for key, value in estimate.settings.items()}
        return Hit(estimate.value, found.real, weight * estimate.value, {**words, **settings}, evidence.source)

    return check


def _check_near(evidence: Evidence) -> Hit | None:
    """Near-duplicates that are no copies."""
    hit = _check_rate("near_duplicate_rate", semantic.measure_near_duplicates, 0.05, 0.6)(evidence)
    copies = evidence.values.get("exact_duplicate_rate")
    return None if hit is None or (copies is not None and hit.value < 2.5 * copies.value) else hit


def _check_sequences(evidence: Evidence) -> Hit | None:
    """Sequences that many rows hold, and that are no opening or ending of theirs."""
    measure = lexical.measure_shared_sequences
    hit = _check_rate("shared_sequence_rate", measure, 0.15, 0.5)(evidence)
    ends = [evidence.values[name].value for name in ("opening_rate", "ending_rate") if name in evidence.values]
    return None if hit is None or "set_sequence" not in hit.words or hit.value < 2.0 * max(ends, default=0.0) else hit


def _check_copies(evidence: Evidence) -> Hit | None:
    """Rows that are real rows."""
    subject = evidence.subject
    if subject.against is None:
        return None
    real = Counter(map(normalise_text, subject.against.texts))
    count = sum(normalise_text(text) in real for text in subject.corpus.texts)
    rate, usual = count / subject.n, sum(times for times in real.values() if times > 1) / real.total()
    if count < 2 or rate < 0.005 + usual:  # real rows that repeat each other repeat fresh ones as often
        return None
    return Hit(rate, 0.005 + usual, 0.8 * rate, {"count": count}, STATED)


# --- diversity ----------------------------------------------------------------------------------------
def _vendi(subject: Subject) -> Estimate:
    return Estimate(value=vendi_score(spectrum(subject.unit)), n=subject.n)


def _check_diversity(wider: bool) -> Callable[[Evidence], Hit | None]:
    """The Vendi score at equal rows, against that of the real rows."""

    def check(evidence: Evidence) -> Hit | None:
        found = evidence.compare(_vendi, evidence.values["vendi_q1"].value)
        if found is None or found.real is None:
            return None
        ratio = found.equal / found.real
        apart = abs(found.equal - found.real) > DEVIATIONS * found.spread
        if not apart or (ratio < 1.2 if wider else ratio > 0.8):
            return None
        words = {"rows": evidence.samples[0][0].n, "value": f"{found.equal:.1f}", "real": f"{found.real:.1f}"}
        return Hit(found.equal, found.real, 0.35 * abs(float(np.log(ratio))), words, REAL)

    return check


def _check_narrow(evidence: Evidence) -> Hit | None:
    """The label whose rows are least diverse for what its real rows are, or for the other labels without real rows."""
    subject, real = evidence.subject, evidence.against
    rng = derive_rng(subject.seed, "findings-labels")
    ours, found = {label: rows for label, rows in _rows_of(subject).items() if len(rows) >= _FEWEST}, []
    theirs = {} if real is None else _rows_of(real)
    least = min(_LABEL_ROWS, *map(len, ours.values())) if ours else 0
    alike = {label: _draw_vendi(subject, members, least, rng) for label, members in ours.items() if real is None}
    for label, members in ours.items():
        if real is None:
            own, others = alike[label], [value for name, value in alike.items() if name != label]
        else:
            rows = min(len(members), len(theirs.get(label, ())) // 2, _LABEL_ROWS)
            times = DRAWS if rows >= _FEWEST // 2 else 0
            others = [_draw_vendi(real, theirs[label], rows, rng) for _ in range(times)]
            own = _draw_vendi(subject, members, rows, rng) if others else 0.0
        if len(others) > 1:
            usual = float(np.mean(others))
            found.append((own / usual, label, own, usual, (usual - own) / max(float(np.std(others, ddof=1)), 1e-9)))
    if not found:
        return None
    ratio, label, own, usual, apart = min(found)
    of_others = min(1.0, float(np.median([each[0] for each in found])))  # a pool narrow everywhere is another finding
    if ratio > 0.67 * of_others or apart < DEVIATIONS:
        return None
    of = "as many rows of another label" if real is None else "as many real rows of it"
    words = {"label": label, "value": f"{own:.1f}", "yardstick": f"{usual:.1f}", "others": of}
    severity = 0.6 * (1.0 - ratio / of_others)
    return Hit(own, usual, severity, words, evidence.source)


def _rows_of(subject: Subject) -> dict[str, NDArray[np.int64]]:
    targets = np.array(subject.corpus.targets)
    return {label: np.flatnonzero(targets == label) for label in subject.corpus.labels}


def _draw_vendi(subject: Subject, members: NDArray[np.int64], rows: int, rng: np.random.Generator) -> float:
    return vendi_score(spectrum(subject.unit[rng.choice(members, rows, replace=False)]))


# --- shift --------------------------------------------------------------------------------------------
def _check_shift(evidence: Evidence) -> Hit | None:
    """A classifier that tells the rows from real ones, and the words that it could go by."""
    found = evidence.values["c2st"]
    if found.value < 0.7 or (found.p_value or 0.0) > 0.05:
        return None
    ours, theirs = tell_words(evidence.subject)
    named = [f"{', '.join(map(repr, words))} {of}" for words, of in ((ours, "here"), (theirs, "in real rows")) if words]
    goes_by = f"; words that tell: {'; '.join(named)}" if named else ""
    words = {"rate": _percent(found.value), "words": goes_by}
    return Hit(found.value, 0.5, 0.6 * (found.value - 0.5), words, "permutation test")


def tell_words(subject: Subject, *, count: int = _SHOWN) -> tuple[list[str], list[str]]:
    """The words that tell the rows from the real ones most surely: of the rows, and of the real rows.

    A logistic regression on which words a row has: the weights of largest size, times how often the words differ.
    Words in fewer than 1% of the rows of both sides are left out.
    """
    if not any(subject.corpus.texts) or subject.against is None:
        return [], []
    rng = derive_rng(subject.seed, "telling-words")
    sides = [
        [set(words[at]) for at in rng.permutation(len(words))[: 2 * ROWS].tolist()]
        for words in (subject.tokens, subject.real_tokens)
    ]
    ours, theirs = (Counter(word for words in side for word in words) for side in sides)
    n, m = map(len, sides)
    gaps = {w: ours[w] / n - theirs[w] / m for w in {*ours, *theirs} if max(ours[w] / n, theirs[w] / m) >= 0.01}
    vocabulary = sorted(gaps, key=lambda word: (-abs(gaps[word]), word))[:_WORDS]
    place = {word: i for i, word in enumerate(vocabulary)}
    data = np.zeros((n + m, len(vocabulary)), dtype=np.float32)
    for row, words in enumerate((*sides[0], *sides[1])):
        data[row, [place[word] for word in words if word in place]] = 1.0
    balance = np.repeat([m / n, 1.0], [n, m])  # both sides weigh the same
    probe = fit_probe(data, ["here"] * n + ["real"] * m, row_weights=balance, l2=_L2)
    weights = probe.weights[:, 0] - probe.weights[:, 1]
    told = weights * np.array([gaps[word] for word in vocabulary])
    order = [at for at in np.argsort(-told) if told[at] > 0]
    named = [[vocabulary[at] for at in order if weights[at] * sign > 0][:count] for sign in (1, -1)]
    return named[0], named[1]


def _check_lengths(name: str) -> Callable[[Evidence], Hit | None]:
    """Rows that are longer or shorter than real ones, or their answers."""

    def check(evidence: Evidence) -> Hit | None:
        found = evidence.values[name]
        own, real = (float(found.settings[each]) for each in ("mean_words", "real_mean_words"))
        ratio = max(own, real) / max(min(own, real), 0.1)
        if found.value < 0.5 or ratio < 1.25:
            return None
        words = {"value": f"{own:.1f}", "real": f"{real:.1f}"}
        return Hit(own, real, 0.1 * min(found.value, 2.0), words, STATED)

    return check


# --- answers ------------------------------------------------------------------------------------------
def _ungrounded(subject: Subject) -> Estimate:
    return replace(found := surface.measure_groundedness(subject), value=1.0 - found.value)


def _check_grounded(evidence: Evidence) -> Hit | None:
    """Answers whose words do not stand in their context; without one, real rows must say what is usual."""
    value, corpus = evidence.values["groundedness"].value, evidence.subject.corpus
    found = evidence.compare(_ungrounded, 1.0 - value)
    if found is None or (found.real is None and None in corpus.contexts):
        return None
    if not found.exceeds(0.3 if found.real is None else 0.1):
        return None
    real = 0.7 if found.real is None else 1.0 - found.real
    yard = "70% or more count as normal" if found.real is None else f"of real rows {_percent(real)}"
    words = {"count": round(value * evidence.subject.n), "yardstick": yard}
    return Hit(value, real, 0.3 + real - value, words, evidence.source)


def _check_reader(evidence: Evidence) -> Hit | None:
    """Answers that a reader does not give."""
    found = evidence.values["reader_agreement"]
    real = found.settings.get("real")
    if real is None or float(real) - found.value < max(0.05, 3.0 * float(found.settings["error"])):
        return None
    words = {"value": f"{found.value:.2f}", "real": f"{real:.2f}"}
    return Hit(found.value, float(real), 0.3 + float(real) - found.value, words, "the reader on real rows")


# --- labels -------------------------------------------------------------------------------------------
def _check_labels(evidence: Evidence) -> Hit | None:
    """Labels that a probe of the real rows doubts: overall, or of one label."""
    subject, noise = evidence.subject, evidence.values["label_noise"]
    by_label = surface.agreement_by_label(subject)
    gaps = []
    for label, (own, n, real, m) in by_label.items():
        both = (own * n + real * m + 1) / (n + m + 2)
        error = np.sqrt(both * (1 - both) * (1 / n + 1 / m))
        if n >= _FEWEST // 2 and m >= _FEWEST // 2 and real - own > max(0.15, DEVIATIONS * error):
            gaps.append((real - own, label, own, real))
    low = float(noise.value == 1.0) if noise.low is None else noise.low  # an interval that lies beyond 1 is none
    overall = noise.value > 0.05 and low > 0.02
    if not overall and not gaps:
        return None
    said = f"About {_percent(noise.value)} of the labels look wrong to a probe of the real rows" if overall else ""
    gap, label, own, real = max(gaps, default=(0.0, "", 0.0, 0.0))
    if gaps:
        start = "; rows labelled" if said else "Rows labelled"
        said += f"{start} {label!r} agree with {'it' if overall else 'a probe of the real rows'} in {_percent(own)}"
        said += f", real rows of that label in {_percent(real)}"
    value, yard = (noise.value, 0.05) if overall else (own, real)
    of_label = gap * (np.array(subject.corpus.targets) == label).mean() if gaps else 0.0
    severity = 0.25 + 1.2 * max(noise.value, float(of_label))
    return Hit(value, yard, severity, {"said": said}, "the real rows' own labels")


def _check_shares(evidence: Evidence) -> Hit | None:
    """Labels of the real rows that have no rows here."""
    subject = evidence.subject
    ours, theirs = subject.corpus.label_counts(), subject.real.label_counts()
    missing = [label for label in theirs if not ours.get(label)]
    if not missing or len(missing) < len(theirs) > subject.n / 2:  # few rows lack labels by chance, but not all
        return None
    words = {"count": len(missing), "labels": len(theirs), "example": missing[0]}
    rate = len(missing) / len(theirs)
    return Hit(float(len(missing)), 0.0, 0.1 + 0.4 * rate, words, "the real rows")


# --- broken and leaked rows ---------------------------------------------------------------------------
# Why a row is broken -> what such rows do, and how to have none of them, where there is a way.
_BROKEN: dict[DegenerateReason, tuple[str, str]] = {
    "empty": ("are empty", ""),
    "broken characters": (
        "hold broken characters, as of a file read in another encoding than its own",
        "Read the file in its own encoding, or ",
    ),
    "chat template": ("hold marks of a chat template, such as <|im_end|>", "Set the stop marks of the generator, or "),
    "error message": ("are error messages of a program", ""),
    "refusal": ("are refusals of the LLM", ""),
    "chatter": ("hold what the LLM says about its texts", "Ask for the text alone, or "),
    "too short": ("are too short to say anything", ""),
    "repetition": ("repeat a word or phrase again and again", "Lower the temperature, or "),
    "prompt echo": ("repeat the prompt", ""),
    "markup": ("hold markup", "Ask for plain text, or "),
    "placeholder": ("hold placeholders, such as [Name]", ""),
    "wrong language": ("are in another language than the real rows", "Name the language in the prompt, or "),
    "truncated": ("stop in the middle of a sentence", "Raise max_tokens, or "),
}
_BY_REAL = ("markup", "placeholder", "wrong language", "truncated")  # found by what real rows do
_STYLE = ("chatter", "too short", "markup", "placeholder", "truncated")  # what few rows of any kind may look like
_REAL_SAMPLE = 2_000


def _real_reasons(subject: Subject) -> Mapping[str, float]:
    """Of the real rows, the fraction with each reason, held against other real rows."""
    if subject.against is None:
        return {}
    rows = np.arange(min(len(subject.against), 2 * _REAL_SAMPLE))
    real, others = subject.against.take(rows[::2]), subject.against.take(rows[1::2])
    found = Counter(map(_name_reason, degenerate_rows(real, reference=others.texts or None)))
    return {reason: count / len(real) for reason, count in found.items()}


def _name_reason(reason: str | None) -> str:
    """Of a text or a completion."""
    return (reason or "").removeprefix("completion: ")


def _check_broken(reason: DegenerateReason) -> Callable[[Evidence], Hit | None]:
    def check(evidence: Evidence) -> Hit | None:
        found = evidence.values["degenerate_rate"]
        count = sum(float(n) for name, n in found.settings.items() if _name_reason(name) == reason)
        rate, real = count / found.n, evidence.subject.once(_real_reasons)
        usual = real.get(reason, 0.0)
        if rate < max(0.01 if reason in _STYLE else 0.002, usual + 3.0 * np.sqrt(usual / 1_000)) or rate * found.n < 2:
            return None
        yard = usual if evidence.against is not None else None
        told = "" if yard is None else f"; of real rows {_percent(yard)} do"
        words = {"count": round(rate * found.n), "yardstick": told}
        severity = (0.1 if reason in _STYLE else 0.2) + 0.8 * rate
        return Hit(rate, yard, severity, words, evidence.source)

    return check


def _check_leaks(evidence: Evidence) -> Hit | None:
    found = evidence.values["leakage"]
    base = float(found.settings.get("baseline", 0.0))
    if round(found.value * found.n) < 2 or found.value < base + 3.0 * np.sqrt((base + 1e-6) / found.n):
        return None
    count = round(found.value * found.n)
    real = f"; of real training rows {_percent(base)} do" if "baseline" in found.settings else ""
    words = {"count": count, "real": real}
    return Hit(found.value, base, 0.7 + found.value, words, "the real rows")


def _check_set_leak(evidence: Evidence) -> Hit | None:
    found = evidence.values["set_leak"]
    if (found.p_value if found.p_value is not None else 1.0) >= 0.01:
        return None
    base = float(found.settings["baseline"])
    words = {"rate": _percent(found.value), "real": _percent(base)}
    return Hit(found.value, base, 0.6, words, "test against the real rows")


def _broken_rule(reason: DegenerateReason) -> Rule:
    text, start = _BROKEN[reason]
    given = " with --prompts" if reason == "prompt echo" else " with --real" if reason in _BY_REAL else ""
    return Rule(
        id=reason.replace(" ", "-"), about="rows are whole texts", needs=("degenerate_rate",),
        check=_check_broken(reason), sentence=f"{{count:,}} of {{n:,}} rows {text}{{yardstick}}.",
        remedy=f"{start}{'remove' if start else 'Remove'} them: `cuvee select FILE`{given}.",
    )  # fmt: skip


RULES: tuple[Rule, ...] = (
    Rule(
        id="leaks", about="held-out rows are not repeated", needs=("leakage",), check=_check_leaks,
        sentence="{count:,} of {n:,} rows repeat a held-out row, so scores on it would be too good{real}.",
        remedy="Remove them: `cuvee select FILE` with --real and --held-out.",
    ),
    Rule(
        id="set-leak", about="rows do not lean on held-out rows as a set", needs=("set_leak",), check=_check_set_leak,
        sentence="The rows look as if they had been written from held-out rows: {rate} of those near one are much "
        "nearer to it than to any real row; of real rows {real}.",
        remedy="Write them again from training rows only.",
    ),
    Rule(
        id="labels", about="labels agree with the real rows", needs=("label_noise",), check=_check_labels,
        sentence="{said}.",
        remedy="Look at those rows, or keep those that agree: `cuvee select FILE` with --real and --agree-top 0.8.",
    ),
    Rule(
        id="missing-labels", about="every label has rows", needs=("label_distance",), check=_check_shares,
        sentence="{count} of the {labels} labels of the real rows have no rows here, {example!r} among them.",
        remedy="Write rows for them, or the blend teaches that they are rare.",
    ),
    Rule(
        id="repeats", about="no rows repeat others", needs=("exact_duplicate_rate",),
        check=_check_rate("exact_duplicate_rate", surface.measure_exact_duplicates, 0.02, 1.0),
        sentence="{count:,} of {n:,} rows repeat an earlier row; {yardstick}.",
        remedy="Run `cuvee select FILE`, which keeps one of each.",
    ),
    Rule(
        id="near-repeats", about="few rows are nearly alike", needs=("near_duplicate_rate",), check=_check_near,
        sentence="{rate} of the rows say nearly the same as another row; {yardstick}.",
        remedy="Thin them out: `cuvee select FILE` with --near 0.9.",
    ),
    Rule(
        id="openings", about="rows begin in many ways", needs=("opening_rate",),
        check=_check_rate("opening_rate", lexical.measure_openings, 0.05, 0.9, "begin with their commonest words"),
        sentence="{rate} of the rows begin with {set_opening!r}; {yardstick}.",
        remedy="Vary the prompt, and ask for several rows at once that begin differently.",
    ),
    Rule(
        id="endings", about="rows end in many ways", needs=("ending_rate",),
        check=_check_rate("ending_rate", lexical.measure_endings, 0.05, 0.8, "end with their commonest words"),
        sentence="{rate} of the rows end with {set_ending!r}; {yardstick}.",
        remedy="Vary the prompt, and ask for several rows at once that end differently.",
    ),
    Rule(
        id="sequences", about="few phrases are shared", needs=("shared_sequence_rate",), check=_check_sequences,
        sentence="{rate} of the rows hold a phrase that many of them share, such as {set_sequence!r}; {yardstick}.",
        remedy="Vary the prompt, or show other seed rows in each.",
    ),
    Rule(
        id="copies", about="real rows are not copied", needs=("exact_duplicate_rate", "length_distance"),
        check=_check_copies, sentence="{count:,} of {n:,} rows are copies of real rows, and add nothing to them.",
        remedy="Remove them: `cuvee select FILE` with --real.",
    ),
    Rule(
        id="narrow", about="as diverse as real rows", needs=("vendi_q1",), compares=True,
        check=_check_diversity(wider=False),
        sentence="The rows are less diverse than real ones: {rows:,} of them are as diverse as {value} "
        "rows that share nothing, as many real rows as {real} (Vendi).",
        remedy="Ask for more topics, or show more seed rows.",
    ),
    Rule(
        id="wide", about="as diverse as real rows", needs=("vendi_q1",), compares=True,
        check=_check_diversity(wider=True),
        sentence="The rows are more diverse than real ones: {rows:,} of them are as diverse as {value} "
        "rows that share nothing, as many real rows as {real} (Vendi); much diversity can be noise.",
        remedy="Read the most novel rows (--page), or lower the level.",
    ),
    Rule(
        id="narrow-label", about="no label is narrow", needs=("vendi_q1",), check=_check_narrow, of_labels=True,
        sentence="The rows of label {label!r} are much alike: they are as diverse as {value} rows that share "
        "nothing, {others} as {yardstick} (Vendi).",
        remedy="Write more varied rows of that label.",
    ),
    Rule(
        id="shift", about="hard to tell from real rows", needs=("c2st",), check=_check_shift,
        sentence="A classifier that is shown one of these rows and one real row knows which is which {rate} of the "
        "time; between real rows it would be 50%{words}.",
        remedy="Show real rows as seed examples, or choose the nearest rows: `cuvee select FILE` with --real, --rows "
        "and --method lowest_shift.",
    ),
    Rule(
        id="lengths", about="as long as real rows", needs=("length_distance",),
        check=_check_lengths("length_distance"),
        sentence="The rows have {value} words on average, real rows {real}.", remedy="State the length in the prompt.",
    ),
    Rule(
        id="ungrounded", about="answers stand in what they are about", needs=("groundedness",), check=_check_grounded,
        sentence="Only {count:,} of {n:,} answers have half of their words that say something in what they are about; "
        "{yardstick}.",
        remedy="Lower the temperature, or remove the others: `cuvee select FILE` with --grounded 0.5.",
    ),
    Rule(
        id="unanswered", about="a reader gives the same answers", needs=("reader_agreement",), check=_check_reader,
        sentence="A reader's own answers agree with those of the rows by {value} (token F1), with those of "
        "real rows by {real}.",
        remedy="Remove rows that it answers differently: `cuvee select FILE` with --real and --reader.",
    ),
    Rule(
        id="answer-copies", about="answers say something of their own", needs=("answer_copy_rate",),
        check=_check_rate("answer_copy_rate", surface.measure_answer_copies, 0.005, 0.9),
        sentence="{count:,} of {n:,} answers are their own question or whole context; {yardstick}.",
        remedy="Run `cuvee select FILE`, which removes them.",
    ),
    Rule(
        id="answer-repeats", about="answers differ", needs=("answer_repeat_rate",),
        check=_check_rate("answer_repeat_rate", surface.measure_answer_repeats, 0.05, 0.6),
        sentence="{count:,} of {n:,} answers repeat that of an earlier row; {yardstick}.",
        remedy="Vary the prompt, and write about more contexts.",
    ),
    Rule(
        id="answer-lengths", about="answers as long as real ones", needs=("answer_length_distance",),
        check=_check_lengths("answer_length_distance"),
        sentence="The answers have {value} words on average, those of real rows {real}.",
        remedy="State the length of an answer in the prompt.",
    ),
    *map(_broken_rule, _BROKEN),
)  # fmt: skip
