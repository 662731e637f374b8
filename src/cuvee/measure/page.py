"""What single rows add, and what the page of a measurement shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cuvee import similarity
from cuvee._version import __version__
from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import Encoder, load_encoder
from cuvee.fingerprint import derive_rng
from cuvee.measure.measuring import METRICS
from cuvee.measure.semantic import order_profile, tau_profile
from cuvee.measure.subject import EXACT_ROWS, NEAR_DUPLICATE, Subject
from cuvee.records import DatasetMap, ExampleScores, Floats, Ints, Measurement, MeasurementPage, SampleRow, Vectors


def score_examples(corpus: Corpus | Subject, *, encoder: Encoder | None = None, tau: float = 0.1) -> ExampleScores:
    """Uniqueness, nearest other example and cluster of near-duplicates of every example. O(n^2).

    Args:
        corpus: the examples, or a subject whose vectors are used.
        encoder: of the texts; None loads the default one. Not used with a subject.
        tau: of the kernel.

    Raises:
        ValueError: no rows, or a tau that is not positive.
    """
    subject = corpus if isinstance(corpus, Subject) else Subject(corpus=corpus, encoder=encoder or load_encoder())
    if subject.n == 0:
        raise ValueError("corpus has no rows; there is nothing to score")
    found = similarity.pairwise_pass(subject.unit, [tau])
    cosine = found.nearest.cosine.astype(np.float64)
    return ExampleScores(
        ids=tuple(subject.corpus.ids),
        tau=tau,
        uniqueness=1.0 / found.sums[0].total,
        nearest=found.nearest.index,
        nearest_cosine=np.where(np.isfinite(cosine), np.clip(cosine, -1.0, 1.0), np.nan),
        cluster=similarity.find_near_duplicates(subject.unit, NEAR_DUPLICATE),
    )


def tabulate_examples(corpus: Corpus, scores: ExampleScores) -> pa.Table:
    """One row an example: id, text, target, its scores, and the id, text and cosine of its nearest other example."""
    near = pa.array(scores.nearest, mask=scores.nearest < 0)
    return pa.table(
        {
            "id": corpus.table["id"],
            "text": corpus.table["text"],
            "target": corpus.table["target"],
            "uniqueness": scores.uniqueness,
            "nearest_id": corpus.table["id"].take(near),
            "nearest_text": corpus.table["text"].take(near),
            "nearest_cosine": scores.nearest_cosine,
            "cluster": corpus.table["id"].take(pa.array(scores.cluster)),
        }
    )


def pick_extremes(
    corpus: Corpus, scores: ExampleScores, *, count: int = 8
) -> tuple[tuple[SampleRow, ...], tuple[SampleRow, ...]]:
    """The most redundant examples, lowest uniqueness first, and the most novel, highest uniqueness first.

    One example of each cluster of near-duplicates and of each text (up to case and punctuation), so that the list
    is not one text many times. No cluster stands in both lists, and each list has at most half of the clusters.

    Args:
        corpus: the examples that ``scores`` are of.
        scores: from ``score_examples``.
        count: most examples a list.
    """
    ids = np.asarray(scores.ids)
    each = min(count, max(1, len(np.unique(scores.cluster)) // 2))
    redundant = _first_of_each(corpus, scores, np.lexsort((ids, scores.uniqueness)), each, set())
    taken = {int(scores.cluster[row]) for row in redundant}
    novel = _first_of_each(corpus, scores, np.lexsort((ids, -scores.uniqueness)), each, taken)
    return _sample(corpus, scores, redundant), _sample(corpus, scores, novel)


def _first_of_each(
    corpus: Corpus, scores: ExampleScores, order: Iterable[np.int64], count: int, taken: set[int]
) -> list[int]:
    """The first ``count`` rows of ``order``, one of each cluster that is not ``taken`` and one of each text."""
    clusters, texts, out = set(taken), set[str](), list[int]()
    for row in (int(i) for i in order):
        cluster, text = int(scores.cluster[row]), normalise_text(corpus.texts[row])
        if cluster in clusters or text in texts:
            continue
        clusters.add(cluster)
        texts.add(text)
        out.append(row)
        if len(out) == count:
            break
    return out


def tell_row(corpus: Corpus, row: int) -> tuple[str, str]:
    """The label and the text of a row as people see it; of a pair no label, and context, text and answer as lines."""
    text, target, context = corpus.texts[row], corpus.targets[row], corpus.contexts[row]
    if corpus.task == "classification":
        return target, text
    about = [] if not context else [f"[{context if len(context) <= _CONTEXT else f'{context[:_CONTEXT]}...'}]"]
    return "", "\n".join([*about, text, f"→ {target}"])


def _sample(corpus: Corpus, scores: ExampleScores, rows: Iterable[int]) -> tuple[SampleRow, ...]:
    told = {row: tell_row(corpus, row) for each in rows for row in (each, int(scores.nearest[each]))}
    return tuple(
        SampleRow(
            id=corpus.ids[row],
            text=told[row][1],
            target=told[row][0],
            uniqueness=float(scores.uniqueness[row]),
            nearest_text=told[int(scores.nearest[row])][1] if scores.nearest[row] >= 0 else "",
            nearest_cosine=float(scores.nearest_cosine[row]),
        )
        for row in rows
    )


_ALL_PAIRS = EXACT_ROWS // 5  # rows up to which curves and each row's scores are worth their all-pairs passes
_CONTEXT = 300  # characters of a context that are shown
_CHUNK = 4096  # rows centred at a time
_SAMPLED = 2000  # rows of a pool whose samples and places on the map a study shows
MARKS = ("most redundant", "most novel")


def gather_page(
    subject: Subject,
    measurement: Measurement,
    parts: Mapping[str, Measurement] | None = None,
    *,
    by: str = "label",
    against_name: str = "",
    reproduce: str = "",
) -> MeasurementPage:
    """Everything that the page of a measurement shows.

    Curves over tau and q and each row's scores need all pairs of rows; above 20,000 rows they are left out.

    Args:
        subject: what was measured.
        measurement: its numbers.
        parts: the numbers of each part alone, from ``measure_parts``.
        by: what the parts are.
        against_name: of the real rows.
        reproduce: the command or code that gives these numbers again.
    """
    small = subject.n <= _ALL_PAIRS
    corpus, real = subject.corpus, subject.against
    redundant, novel = pick_extremes(corpus, score_examples(subject)) if small and any(corpus.texts) else ((), ())
    return MeasurementPage(
        measurement=measurement,
        taus=tau_profile(subject) if small else None,
        orders=(order_profile(subject),),
        by_label=parts or {},
        by=by,
        map=_draw_map(subject),
        redundant=redundant,
        novel=novel,
        notes=METRICS,
        against_name=against_name,
        against_rows=None if real is None else len(real),
        settings=_write_settings(subject),
        reproduce=reproduce,
        version=__version__,
    )


def _draw_map(subject: Subject) -> DatasetMap:
    """The map of the corpus, together with the real rows where there are any; by level where rows have one."""
    corpus, real = subject.corpus, None if subject.is_real else subject.against
    levels = [None if v is None else str(v) for v in corpus.table["level"].to_pylist()]
    by_level = len({v for v in levels if v is not None}) > 1
    groups = [v or "no level" for v in levels] if by_level else list(corpus.targets)
    origins = corpus.origins if real is None else ["synthetic"] * len(corpus)
    vectors, examples = subject.unit, list(zip(origins, groups, corpus.texts, strict=True))
    if real is not None:
        vectors = np.vstack([vectors, subject.against_unit])
        targets = ["real"] * len(real) if by_level else real.targets
        examples += [("real", target, text) for target, text in zip(targets, real.texts, strict=True)]
    return map_examples(vectors, examples, grouping="level" if by_level else "label", seed=subject.seed)


def sample_subject(corpus: Corpus, encoder: Encoder, *, seed: int = 0) -> Subject:
    """At most 2,000 rows of a corpus, drawn at random: others are not embedded."""
    if len(corpus) > _SAMPLED:
        rows = derive_rng(seed, "sample").choice(len(corpus), _SAMPLED, replace=False)
        corpus = corpus.take(np.sort(rows))
    return Subject(corpus=corpus, encoder=encoder)


def sample_rows(subject: Subject, *, count: int = 6) -> list[tuple[str, str, str]]:
    """Some rows of a pool, as label, text and mark: two ``most redundant``, two ``most novel``, others without a mark.

    Args:
        subject: the pool, or a sample of it.
        count: rows spread over the pool that have no mark.
    """
    corpus, marked = subject.corpus, dict[tuple[str, str], str]()
    if subject.n:
        for mark, picked in zip(MARKS, pick_extremes(corpus, score_examples(subject), count=2), strict=True):
            marked |= {(row.target, row.text): mark for row in picked}
    others = [row for row in dict.fromkeys(tell_row(corpus, row) for row in range(subject.n)) if row not in marked]
    spread = others[:: max(1, len(others) // count)][:count]
    return [(*row, marked.get(row, "")) for row in (*marked, *spread)]


def map_pools(real: Subject, pools: Mapping[str, Subject], *, rows: int, most: int = 3000, seed: int = 0) -> DatasetMap:
    """The map of real training rows and of pools, each text of a pool once; above ``most`` points a sample.

    A third of the sample is real, where there are so many; the pools share the rest alike.

    Args:
        real: the real training rows, or a sample of them.
        pools: name -> pool, or a sample of it.
        rows: of all of them.
        most: points.
        seed: of the draw.
    """
    vectors, examples = list[Vectors](), list[tuple[str, str, str]]()
    left = {"real": min(real.n, most // 3)}
    left |= dict.fromkeys(pools, (most - left["real"]) // max(1, len(pools)))
    for name, subject in {"real": real, **pools}.items():
        once = np.array(sorted({text: i for i, text in enumerate(subject.corpus.texts)}.values()), dtype=np.int64)
        if len(once) > left[name]:
            once = np.sort(derive_rng(seed, "map", name).choice(once, left[name], replace=False))
        if len(once):
            vectors.append(subject.unit[once])
        origin = "real" if name == "real" else "synthetic"
        examples += [(origin, name, subject.corpus.texts[i]) for i in once]
    made = map_examples(np.vstack(vectors), examples, grouping="level", max_points=most, seed=seed)
    return replace(made, rows=rows)


def _write_settings(subject: Subject) -> dict[str, str]:
    found = {"seed": str(subject.seed)}
    if subject.sample is not None:
        found["all pairs"] = f"{len(subject.sample):,} sampled rows against all {subject.n:,}"
    return found


# --- the map ---
def map_examples(
    vectors: Vectors, examples: Sequence[tuple[str, str, str]], *, grouping: str = "label", max_points: int = 1500,
    seed: int = 0,
) -> DatasetMap:  # fmt: skip
    """Two coordinates for each of at most ``max_points`` examples.

    Principal components of all rows (covariance d x d, so memory does not grow with n); the sign of an axis is such
    that its largest loading is positive.

    Args:
        vectors: shape (n, d), one a row, finite.
        examples: of the same rows: ``real`` or ``synthetic``, the group (a label or level), and the text.
        grouping: what the groups are, for the reader: ``label``, ``level``.
        max_points: above it, that many rows are drawn at random.
        seed: of the draw.
    """
    n = len(vectors)
    drawn = derive_rng(seed, "map").choice(n, min(n, max_points), replace=False)
    rows = np.sort(drawn)
    places, explained = _principal_components(vectors, rows)
    origin, group, text = zip(*(examples[i] for i in rows), strict=True)
    return DatasetMap(
        x=places[:, 0], y=places[:, 1], origin=origin, group=group, text=text, explained=explained, rows=len(vectors),
        seed=seed, grouping=grouping,
    )  # fmt: skip


def _principal_components(vectors: Vectors, rows: Ints) -> tuple[Floats, float | None]:
    """Coordinates of ``rows`` on the two widest directions of all vectors, and their share of the variance."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    d = vectors.shape[1]
    covariance = np.zeros((d, d))
    for start in range(0, len(vectors), _CHUNK):
        centred = vectors[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    axes, widths, _ = np.linalg.svd(covariance, hermitian=True)
    total = float(widths.sum())
    places = np.zeros((len(rows), 2))
    if total <= len(vectors) * np.finfo(np.float32).eps ** 2 * d:  # all rows alike: what is left is rounding
        return places, None
    for axis in range(min(2, d)):
        loadings = axes[:, axis]
        sign = np.sign(loadings[np.argmax(np.abs(loadings))])
        places[:, axis] = sign * ((vectors[rows] - mean) @ loadings)
    return places, float(widths[:2].sum() / total)
