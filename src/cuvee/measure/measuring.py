"""The METRICS table, and measuring a corpus, vectors or parts: every metric whose needs are met, with its interval."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, forms
from cuvee.corpus.table import column_strings
from cuvee.encoders import Encoder, KnownVectors, load_encoder
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.measure import lexical, semantic, shift, surface
from cuvee.measure.findings import find_findings
from cuvee.measure.subject import LESS, MORE, TAUS, GivenVectors, Metric, Need, Subject
from cuvee.records import Estimate, Measurement, Vectors
from cuvee.records.measurement import Family
from cuvee.registry import Kind, resolve_name

_REMEDY: dict[Need, str] = {
    "texts": "a corpus with texts",
    "vectors": "an encoder",
    "against": "against=, the real training rows",
    "held_out": "held_out=, the validation and test texts; a comparison takes none",
    "pairs": "a corpus of the task generation, with answers",
    "reader": "a reader (--reader)",
    "labels": "a corpus and an against of the task classification, with at least two labels",
}
_OF_TEXTS = (
    "vendi_q1",
    "distinct_2",
    "skeleton_entropy",
    "self_repetition",
    "mean_words",
    "mmd",
)  # of ``measure_texts``
_EQUAL_N = "compare only at equal numbers of rows"
_RISES = f"{LESS}; rises with the number of rows"
_MEANINGS = "effective number of distinct meanings"
_CLOSER = "lower is closer to the real data"
_LIKE = "is more like the real data; compare at equal rows"
_COVERS = "higher covers more of the real data; compare at equal rows"
# A metric's name, what computes it, what it is, and how to read it.
Entry = tuple[str, Callable[[Subject], Estimate | None], str, str]
# A family, what its metrics need, whether they are measured unless others are asked for, and the metrics.
Group = tuple[Family, tuple[Need, ...], bool, Sequence[Entry]]


_GROUPS: tuple[Group, ...] = (
    ("semantic", ("vectors",), True, [
        *(
            (f"dcscore_tau{tau:g}", partial(semantic.measure_dcscore, tau=tau),
             f"DCScore, cosine kernel, tau = {tau:g}: {_MEANINGS}", MORE)
            for tau in TAUS
        ),
        *(
            (f"vendi_q{q:g}", partial(semantic.measure_vendi, q=q),
             f"Vendi score of order {q:g}, cosine kernel: effective number of independent directions", MORE)
            for q in (0.5, 1.0, 2.0, float("inf"))
        ),
        ("mean_pairwise_cosine", semantic.measure_mean_cosine, "mean cosine over all pairs of different rows", LESS),
        ("mean_nearest_cosine", semantic.measure_mean_nearest_cosine,
         "mean cosine of a row to the nearest other row", f"{_RISES}, {_EQUAL_N}"),
        ("near_duplicate_rate", semantic.measure_near_duplicates,
         "fraction of rows that have another row at a cosine of at least 0.95", LESS),
    ]),
    ("lexical", ("texts",), True, [
        *(
            (f"distinct_{size}", partial(lexical.measure_distinct, size=size),
             f"different {size}-grams over all {size}-grams of words",
             f"{MORE}; falls with the number of rows and their length")
            for size in (1, 2, 3)
        ),
        ("ngram_entropy_2", lexical.measure_entropy, "Shannon entropy of the 2-grams of words, in bits",
         f"{MORE}; rises with the number of rows and their length"),
        ("self_bleu", lexical.measure_self_bleu, "mean BLEU-4 of each row against all the others", _RISES),
        ("self_repetition", lexical.measure_self_repetition,
         "fraction of 4-grams of words that stand in another row too", _RISES),
        ("shared_sequence_rate", lexical.measure_shared_sequences,
         "fraction of rows that hold four words in a row which over 1% of the rows, and more than five, hold", LESS),
        ("opening_rate", lexical.measure_openings, "fraction of rows that begin with the commonest two words", LESS),
        ("ending_rate", lexical.measure_endings, "fraction of rows that end with the commonest two words",
         "higher: more rows end alike"),
        ("skeleton_entropy", lexical.measure_skeletons,
         "Shannon entropy, in bits, of the rows' skeletons: their frequent words, with all others masked",
         f"{MORE}; rises with the number of rows"),
        ("compression_ratio", lexical.measure_compression,
         "bytes of the sorted rows over their bytes after bzip2, which sees 900 kB at once", _RISES),
        ("exact_duplicate_rate", surface.measure_exact_duplicates,
         "fraction of rows that repeat an earlier one, case and punctuation aside", _RISES),
        ("mean_words", lexical.measure_mean_words, "mean number of words a row",
         "not a diversity: compare the other numbers at equal length"),
    ]),
    ("shift", ("vectors", "against"), True, [
        ("mmd", shift.measure_mmd, "unbiased squared maximum mean discrepancy to the real training rows, RBF kernel",
         _CLOSER),
        ("c2st", shift.measure_c2st,
         "cross-validated AUC of a linear classifier that tells rows from real training rows",
         "0.5 cannot be told from the real data, 1 always can; rises with the number of rows"),
    ]),
    ("shift", ("vectors", "against"), False, [
        ("precision", partial(shift.measure_manifold, part="precision"),
         "share of rows within 5-nearest-neighbour reach of a real row", f"higher {_LIKE}"),
        ("recall", partial(shift.measure_manifold, part="recall"),
         "share of real rows within 5-nearest-neighbour reach of a row", _COVERS),
    ]),
    ("shift", ("against", "labels"), True, [(
        "label_distance", surface.measure_label_distance, "total variation distance of the label distributions, 0 to 1",
        f"{_CLOSER}; falls with the number of rows",
    )]),
    ("shift", ("texts", "against"), True, [
        ("length_distance", surface.measure_length_distance,
         "1-Wasserstein distance of the numbers of words, in standard deviations of the real rows",
         f"{_CLOSER}; falls with the number of rows"),
    ]),
    ("quality", ("vectors", "against", "labels"), True, [
        ("label_agreement", surface.measure_label_agreement,
         "fraction of rows whose label is what a probe fitted on the real training rows says",
         "higher is cleaner; hard rows lower it too"),
        ("label_noise", surface.measure_label_noise,
         "estimated fraction of mislabelled rows, by confident learning on the real training rows",
         "lower is cleaner; takes the real labels as right"),
    ]),
    ("quality", ("texts",), True, [(
        "degenerate_rate", surface.measure_degenerate_rate,
        "fraction of rows that are empty, broken, cut off, refused, repeated or in another language",
        "lower is cleaner",
    )]),
    ("quality", ("texts", "pairs"), True, [
        ("groundedness", surface.measure_groundedness,
         "fraction of rows of whose answer half the content words or more stand in the context, or in the text",
         "read it beside that of the real rows: short and free answers lower it too"),
        ("answer_copy_rate", surface.measure_answer_copies, "fraction of answers that are their text or whole context",
         "lower is cleaner"),
        ("answer_repeat_rate", surface.measure_answer_repeats, "fraction of answers that repeat an earlier row's",
         _RISES),
    ]),
    ("quality", ("texts", "pairs", "against"), True, [(
        "answer_length_distance", surface.measure_answer_lengths,
        "1-Wasserstein distance of the answers' numbers of words, in standard deviations of the real ones", _CLOSER,
    )]),
    ("quality", ("texts", "pairs", "reader"), True, [(
        "reader_agreement", surface.measure_reader_agreement,
        "mean token F1 of a reader's own answers with those of the rows", "read it beside that of the real rows",
    )]),
    ("quality", ("texts", "vectors", "held_out"), True, [(
        "leakage", surface.measure_leakage,
        "fraction of rows that repeat a held-out text more closely than real training rows do", "lower is safer",
    )]),
    ("quality", ("texts", "vectors", "against", "held_out"), True, [(
        "set_leak", surface.measure_set_leak,
        "of the rows whose nearest real row is held out, the fraction much nearer to it than to any other real row",
        "lower is safer; p below 0.01: the rows look as if they had been written from held-out rows",
    )]),
)  # fmt: skip

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        name: Metric(
            name=name, family=family, description=text, better=better, needs=needs, compute=compute, standard=standard
        )
        for family, needs, standard, entries in _GROUPS
        for name, compute, text, better in entries
    }
)
STANDARD: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.standard)


def are_named(metrics: Sequence[str | Metric] | None) -> bool:
    """Whether metrics were asked for one by one, so that none may be left out."""
    return metrics is not None and "all" not in metrics


def choose_metrics(metrics: Sequence[str | Metric] | None) -> tuple[Metric, ...]:
    """The metrics that are meant: None the standard ones, "all" every one, else those named or given.

    Raises:
        ConfigError: no metric of that name, or ``module:Name`` of something else.
    """
    if metrics is None:
        return tuple(METRICS[name] for name in STANDARD)
    return tuple(map(_resolve, metrics)) if are_named(metrics) else tuple(METRICS.values())


def pick_defined(
    metrics: Sequence[str | Metric] | None,
    corpora: Sequence[Corpus],
    against: Corpus | None,
    held_out: Sequence[str] | None = None,
    *,
    reads: bool = False,
) -> tuple[Metric, ...]:
    """The metrics that are meant, less those that lack what they need.

    Args:
        metrics: as for ``choose_metrics``.
        corpora: what is measured.
        against: the real training rows.
        held_out: validation and test texts.
        reads: whether there is a reader.

    Raises:
        ConfigError: no metric of that name.
        ValueError: a metric was asked for by name, and its needs are not met.
    """
    chosen, has_texts = choose_metrics(metrics), all(any(corpus.texts) for corpus in corpora)
    labelled = against is not None and len(against.labels) > 1
    pairs = all(corpus.task == "generation" and any(corpus.targets) for corpus in corpora)
    met: dict[Need, bool] = {
        "texts": has_texts,
        "vectors": True,
        "against": against is not None,
        "held_out": bool(held_out),
        "pairs": pairs and (against is None or any(against.targets)),
        "reader": reads,
        "labels": labelled and any(corpus.has_labels for corpus in corpora),
    }
    of_both = has_texts and (against is None or any(against.texts))
    missing: dict[str, Need | None] = {}
    for metric in chosen:
        here = {**met, "texts": of_both} if "against" in metric.needs else met
        missing[metric.name] = need = next((need for need in metric.needs if not here[need]), None)
        if need is not None and are_named(metrics):
            raise ValueError(f"metric {metric.name!r} needs {_REMEDY[need]}; give that, or leave the metric out")
    return tuple(metric for metric in chosen if missing[metric.name] is None)


def _resolve(entry: str | Metric) -> Metric:
    if isinstance(entry, str):
        return resolve_name(entry, METRICS, Kind(name="metric", is_a=Metric))
    if not isinstance(entry, Metric):
        raise ConfigError(f"metric {entry!r} is not a cuvee.measure.Metric but a {type(entry).__name__}")
    return entry


By = Literal["label", "level", "dial", "origin", "group"]
FIELDS = ("field", "role")  # parts that are in every row
Listen = Callable[[str, int, int], None]


def measure_corpus(
    corpus: Corpus,
    *,
    against: Corpus | None = None,
    held_out: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    metrics: Sequence[str | Metric] | None = None,
    name: str = "corpus",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    progress: Listen | None = None,
) -> Measurement:
    """Diversity, shift, quality and leakage of a corpus.

    Metrics whose needs are not met, or that are not defined (a mean over pairs of one row), are left out
    unless they were asked for by name. Numbers of two corpora compare only with the same encoder, the same
    number of rows and like lengths: see ``compare_corpora``.

    Args:
        corpus: what is measured.
        against: the real training rows: gives shift, label agreement and the baseline of leakage.
        held_out: validation and test texts: gives leakage.
        prompts: the instructions that the LLM was given: rows that repeat them are degenerate.
        encoder: of the texts, or ``GivenVectors``; None loads the default one where a metric needs vectors.
        metrics: names in METRICS, ``module:Name``, or Metric objects; "all" means every one, None the standard
            ones.
        name: of the measurement.
        seed: of subsample, jackknife bins, permutations and probes.
        permutations: of the tests of shift.
        rows: measure a seeded subsample of this many rows, whole groups first, so that corpora are compared
            at equal size.
        progress: told of what is being done, units done and all units.

    Raises:
        ConfigError: no metric of that name.
        InputError: a text that the encoder has no vector for.
        ValueError: an empty corpus, ``rows`` out of range, or a metric asked for whose needs are not met.
    """
    subject = Subject(
        corpus=corpus, against=against, held_out=held_out, prompts=prompts, encoder=encoder, seed=seed,
        permutations=permutations, listen=progress,
    )  # fmt: skip
    return measure_subject(draw_rows(subject, rows), metrics, name=name, findings=True)


def measure_vectors(
    vectors: Vectors,
    *,
    against: Vectors | None = None,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    made_by: str = "given vectors",
    metrics: Sequence[str | Metric] | None = None,
    name: str = "vectors",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    progress: Listen | None = None,
) -> Measurement:
    """Diversity of vectors of anything, and their shift from other vectors of the same kind.

    Args:
        vectors: shape (n, d); rows need not have length 1.
        against: vectors of the real rows, shape (m, d).
        labels: of the n rows.
        groups: of the n rows: rows of one group (augmentations of one source) are not independent.
        made_by: name of the model that made the vectors; only numbers with the same name compare.
        metrics: as for ``measure_corpus``, and so is all that follows.
        name: of the measurement.
        seed: of subsample, jackknife bins and permutations.
        permutations: of the tests of shift.
        rows: measure a seeded subsample of this many rows.
        progress: told of what is being done, units done and all units.

    Raises:
        ValueError: shapes that do not agree, a row without direction, a metric that needs texts.
    """
    if against is not None and against.shape[1:] != vectors.shape[1:]:
        raise ValueError(f"against has shape {against.shape!r} and vectors {vectors.shape!r}; they need one length")
    subject = Subject(
        corpus=Corpus.without_texts(len(vectors), targets=labels, groups=groups),
        against=None if against is None else Corpus.without_texts(len(against)),
        encoder=GivenVectors(made_by, vectors, against), seed=seed, permutations=permutations,
        listen=progress,
    )  # fmt: skip
    return measure_subject(draw_rows(subject, rows), metrics, name=name, findings=True)


def measure_subject(
    subject: Subject, metrics: Sequence[str | Metric] | None = None, *, name: str, findings: bool = False
) -> Measurement:
    """The numbers of a subject and, if wanted, its findings. See ``measure_corpus`` for the rest."""
    if subject.n == 0:
        raise ValueError("corpus has no rows; there is nothing to measure")
    strict, wanted = (
        are_named(metrics),
        pick_defined(metrics, [subject.corpus], subject.against, subject.held_out, reads=subject.reader is not None),
    )
    if subject.encoder is None and any("vectors" in m.needs for m in wanted):
        subject = replace(subject, encoder=load_encoder())
    values: dict[str, Estimate] = {}
    for done, metric in enumerate(wanted):
        if subject.listen is not None:
            subject.listen("measure", done, len(wanted))
        estimate = metric.compute(subject)
        if estimate is not None:
            values[metric.name] = estimate
        elif strict:
            raise ValueError(f"metric {metric.name!r} is not defined on these {subject.n} rows; leave it out")
    if subject.listen is not None:
        subject.listen("measure", len(wanted), len(wanted))
    return Measurement(
        name=name,
        fingerprint=subject.fingerprint,
        against=None if subject.against is None else subject.against_fingerprint,
        n=subject.n,
        encoder="none" if subject.encoder is None else subject.encoder.name,
        encoder_hash="" if subject.encoder is None else subject.encoder.hash,
        seed=subject.seed,
        values=values,
        findings=find_findings(subject, values) if findings else (),
    )


def draw_rows(subject: Subject, rows: int | None) -> Subject:
    """The subject with exactly ``rows`` of its rows (None: all), as ``pick_groups`` picks them."""
    return subject if rows is None else subject.take(pick_groups(subject.corpus, rows, seed=subject.seed))


def pick_groups(corpus: Corpus, rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Exactly ``rows`` rows, in order: whole groups in a seeded order, the last one cut to fit.

    Raises:
        ValueError: ``rows`` below 1 or above the corpus.
    """
    if not 1 <= rows <= len(corpus):
        raise ValueError(f"rows is {rows!r}; the corpus has {len(corpus)}, give 1 to {len(corpus)}")
    if rows == len(corpus):
        return np.arange(rows)
    members: dict[str, list[int]] = {}
    for row, group in enumerate(corpus.groups):
        members.setdefault(group, []).append(row)
    rng = derive_rng(seed, "rarefy")
    names = list(members)
    ordered = [row for i in rng.permutation(len(names)) for row in rng.permutation(members[names[i]]).tolist()]
    return np.sort(np.array(ordered[:rows], dtype=np.int64))


# --- each part alone ----------------------------------------------------------------------------------
def parts_of(corpus: Corpus, by: str, cells: Mapping[str, object] | None = None) -> list[str]:
    """The part that each row belongs to: its label, level, dial, origin or group, or its cell of another column.

    Args:
        corpus: the rows.
        by: what names the parts.
        cells: id -> cell of that column, where the rows come from a file that has it.

    Raises:
        ValueError: an unknown ``by``, or one that the rows do not have.
    """
    own = corpus.own.column_names
    if cells is None and by not in (*get_args(By), *own):
        raise ValueError(f"by is {by!r}; valid: {', '.join([*get_args(By), *own])}")
    known = {"label": corpus.targets, "origin": corpus.origins, "group": corpus.groups}
    if cells is not None:
        found = [cells[row] for row in corpus.ids]
    else:
        found = list(known[by]) if by in known else column_strings(corpus.table, by, "the rows").to_pylist()
    names = ["" if cell is None else str(cell) for cell in found]
    if not all(names):
        raise ValueError(f"by is {by!r}, but row {names.index('') + 1} has none")
    if len(set(names)) == len(corpus) and len(corpus) > 1:
        raise ValueError(f"by is {by!r}, but every row has another; there is nothing to measure within a part")
    return names


def measure_parts(
    subject: Subject, parts: Sequence[str], metrics: Sequence[str | Metric] | None = None
) -> dict[str, Measurement]:
    """A measurement of the rows of each part, by the sorted names of parts; embeds nothing again.

    Where the real rows have labels of the same names, a part is measured against the real rows of its label,
    else against all. Parts have different numbers of rows, and most numbers depend on them: give the subject
    equal parts, or read the intervals with that in mind.

    Args:
        subject: the corpus, prepared.
        parts: part of each row, shape (n,).
        metrics: as for ``measure_corpus``.
    """
    if subject.given is None and any("vectors" in metric.needs for metric in choose_metrics(metrics)):
        against = [] if subject.against is None else subject.against.texts
        texts = [*subject.corpus.texts, *against, *(subject.held_out or ())]
        subject = replace(subject, encoder=KnownVectors(subject.encoder or load_encoder(), texts))
    names = np.array(parts)
    found: dict[str, Measurement] = {}
    for name in sorted(set(parts)):
        like = None if subject.against is None else np.flatnonzero(np.array(subject.against.targets) == name)
        like = None if like is None or len(like) < 2 else like
        part = replace(subject.take(np.flatnonzero(names == name), like), listen=None)
        found[name] = measure_subject(part, metrics, name=name)
    return found


def split_fields(corpus: Corpus, by: str) -> dict[str, Corpus]:
    """The parts of every row as corpora of their own: its ``text``, its ``target`` and the ``pair`` of both, by field.

    By role: what each role says in its turns, a turn a row; the turns of one conversation are one group.
    """
    made = dict[str, list[dict[str, object]]]()
    for row, (prompt, target, group) in enumerate(zip(corpus.texts, corpus.targets, corpus.groups, strict=True)):
        parts = [("text", prompt), ("target", target), ("pair", f"{prompt}\n\n{target}")]
        if by == "role":
            parts = [*forms.split_turns(prompt), ("assistant", target)]
        for at, (name, said) in enumerate(parts):
            made.setdefault(name, []).append({"id": f"{row}:{at}", "text": said, "target": "", "group": group})
    return {name: Corpus.from_rows(rows, task=corpus.task) for name, rows in made.items()}


def measure_fields(subject: Subject, by: str, metrics: Sequence[str | Metric] | None = None) -> dict[str, Measurement]:
    """A measurement of each field or role of all rows, against that of the real rows.

    Raises:
        ValueError: the rows are of the task classification, whose targets are labels.
    """
    if subject.corpus.task == "classification" or subject.given is not None:
        raise ValueError(f"by is {by!r}, and the rows are no pairs of texts; give rows of the task generation")
    real = {} if subject.against is None else split_fields(subject.against, by)
    return {
        name: measure_subject(
            replace(subject, corpus=own, against=real.get(name), held_out=None, reader=None, listen=None),
            metrics, name=name,
        )
        for name, own in split_fields(subject.corpus, by).items()
    }  # fmt: skip


def measure_texts(
    texts: Sequence[str], real: Sequence[str], encoder: Encoder, *, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """Diversity and shift of texts beside real ones, and the standard errors that are known; blank texts count apart.

    What is not defined, as of texts that are too short, is left out.
    """
    seen, known = ({word for text in each for word in re.findall(r"\w+", text.casefold())} for each in (texts, real))
    told = [text for text in texts if text.strip()]
    values = {"vocabulary": len(seen & known) / max(1, len(known)), "empty": 1 - len(told) / max(1, len(texts))}
    errors = dict[str, float]()
    if len(told) < 2:
        return values, errors
    shown, against = (
        Corpus.from_rows([{"text": text, "target": ""} for text in each], task="generation") for each in (told, real)
    )
    subject = Subject(corpus=shown, against=against, encoder=encoder, seed=seed)
    for name in _OF_TEXTS:
        if (found := METRICS[name].compute(subject)) is not None:
            values[name] = found.value
            if found.low is not None and found.high is not None:
                errors[name] = (found.high - found.low) / (2 * 1.96)
    return values, errors
