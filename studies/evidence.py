"""Write the tables of docs/evidence.md, and the sentence about them in README.md, from the results of the studies.

The rules of their preregistrations decide what counts for and against.

    python studies/evidence.py

The claims stand between the lines ``<!-- claims -->`` and ``<!-- end of claims -->``, the tables between
``<!-- tables -->`` and ``<!-- end of tables -->``; the prose around them stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "evidence.md"
POINT = 0.01
Result = dict[str, Any]
Cell = dict[str, Any]


def read_results(kind: str) -> dict[str, Result]:
    """The results of the studies of one kind that were run: by data set."""
    found = sorted(HERE.glob(f"{kind}-*/result.json"))
    return {path.parent.name.partition("-")[2]: json.loads(path.read_bytes()) for path in found}


def points(gain: list[float] | None) -> str:
    """A gain with its interval, in points."""
    if gain is None:
        return ""
    value, low, high = (100 * each for each in gain)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def amount(cell: Cell) -> float:
    """Synthetic rows for each real one."""
    return float(cell["share"] / (1 - cell["share"]))


def name(cell: Cell, dial: str | None = None) -> str:
    """Level and amount; the dial too, where it is another than the one at hand."""
    of = "" if dial in (None, cell["dial"]) else f"{cell['dial']}="
    return f"{of}{cell['level']}, {'all of it, ' if cell['whole'] else ''}{amount(cell):.3g}x"


def blends_of_any(result: Result) -> list[Cell]:
    """The blends of the first trainer and loss, in every scope."""
    cells = [c for c in result["cells"] if c["kind"] == "blend" and c["gain"]]
    return [c for c in cells if (c["trainer"], c["loss"]) == (cells[0]["trainer"], cells[0]["loss"])]


def blends(result: Result, rows: int | None = None) -> list[Cell]:
    """The blends that compete, at so many real rows a label: of files those of the very rows at hand."""
    cells = blends_of_any(result)
    of_pool = [c for c in cells if c["scope"] == "this pool"]
    is_files = "generator files" in result["scope"]
    return [c for c in (of_pool if is_files else cells) if rows is None or c["rows_per_label"] == rows]


def sizes(result: Result) -> list[int]:
    """Numbers of real rows a label, smallest first."""
    return sorted({c["rows_per_label"] for c in blends(result)})


def common_amount(cells: list[Cell]) -> dict[str, Cell]:
    """The cell of each level at the largest amount that all levels have."""
    levels = {c["level"] for c in cells}
    for wanted in sorted({round(amount(c), 1) for c in cells}, reverse=True):
        found = {c["level"]: c for c in cells if round(amount(c), 1) == wanted}
        if found.keys() == levels:
            return found
    return {}


def pools_alike(result: Result, rows: int) -> dict[str, Cell]:
    """The single pools at the largest amount that all of them have, at so many real rows a label."""
    return common_amount([c for c in blends(result, rows) if c["level"] != "together"])


def judge_gap(gap: float) -> str:
    """The rule of a difference in scores: over a point, either way."""
    return "supported" if gap > POINT else "contradicted" if gap < -POINT else "undecided"


def judge_shape(result: Result, shape: dict[str, Any] | None) -> str:
    """The rule of the studies of levels."""
    if shape is None:
        return "undecided (too few rows for a shape)"
    won = result["confirmed"]
    level, ends = won and won["dial"] == shape["dial"] and won["level"], (shape["levels"][0], shape["levels"][-1])
    sure = won is not None and won["gain"][1] > 0
    if shape["verdict"] == "inverted-U" and sure and level and level not in ends:
        return "supported"
    if (shape["verdict"] == "rising" and shape["interpreted"]) or (sure and level == ends[1]):
        return "contradicted"
    return "undecided"


def judge_written(result: Result, shape: dict[str, Any]) -> str:
    """The rule of pools that an LLM wrote for the study: the same, and an interior winner unlike both ends will do."""
    won, best, ends = result["confirmed"], result["best"], (shape["levels"][0], shape["levels"][-1])
    if shape["verdict"] == "inverted-U" and shape["interpreted"]:
        return "supported"
    alike = {cell["level"] for cell in result["alike"] if cell["dial"] == shape["dial"]}
    inside = best is not None and best["dial"] == shape["dial"] and best["level"] not in ends
    if inside and won is not None and won["gain"][1] > 0 and not alike & set(ends):
        return "supported"
    return judge_shape(result, shape)


def judge_turn(_result: Result, shape: dict[str, Any] | None) -> str:
    """The rule of the studies of the turn: the verdict on the shape alone."""
    verdict = "" if shape is None else shape["verdict"]
    contrary = ("rising", "falling", "U-shaped")
    return "supported" if verdict == "inverted-U" else "contradicted" if verdict in contrary else "undecided"


def judge_losses(result: Result) -> str:
    """The rule of the losses: one gains over a point in the worst cell and does not lose one in the best."""
    gains = {tuple(each["what"].split(": ")): each["gain"][0] for each in result["contrasts"]}
    helps = any(
        gain > POINT and gains["best", loss] > -POINT for (where, loss), gain in gains.items() if where == "worst"
    )
    return "supported" if helps else "contradicted" if max(gains.values()) <= POINT else "undecided"


def judge_near(result: Result) -> str:
    """The rule of small shift: a far pool harms, or near rows beat far ones by over a point."""
    near = largest(result, "near less far")
    harmful = any(str(c["level"]).startswith("far") for c in result["harmful"])
    return "supported" if harmful else judge_gap(near["gain"][0])


def judge_swaps(result: Result) -> str:
    """The rule of swapped words: as good where an LLM is nowhere better by a point; not where labels are scarcest."""
    gaps = [each["gain"][0] for each in result["contrasts"]]
    return "supported" if max(gaps) < POINT else "contradicted" if gaps[0] > POINT else "undecided"


def rank_alike(result: Result) -> tuple[float, list[float], list[float]]:
    """Rank correlation of the probe's and the encoder's scores of the cells that both have, and the scores."""
    cells = [c for c in result["cells"] if c["kind"] == "blend" and c["scope"] == "this pool"]
    scores = {
        trainer: {(c["level"], c["share"]): c["score"] for c in cells if c["trainer"] == trainer}
        for trainer in ("probe", "encoder")
    }
    both = sorted(scores["probe"].keys() & scores["encoder"].keys())
    probe, encoder = ([scores[trainer][key] for key in both] for trainer in ("probe", "encoder"))
    return float(spearmanr(probe, encoder).statistic), probe, encoder


def judge_ranking(rho: float) -> str:
    """The rule of the probe's ranking."""
    return "supported" if rho >= 0.7 else "contradicted" if rho < 0.3 else "undecided"


def largest(result: Result, what: str) -> dict[str, Any]:
    """A difference at the largest number of real rows a label."""
    return max((each for each in result["contrasts"] if each["what"] == what), key=lambda each: each["rows"])


def order_levels(result: Result, dial: str) -> list[str]:
    """The levels of a dial, from the least to the most diverse as measured (Vendi score)."""
    found = {key: values["vendi_q1"][0] for key, values in result["measured"].items() if key.startswith(f"{dial}=")}
    return [key.partition("=")[2] for key in sorted(found, key=found.__getitem__)]


def tell_levels(kind: str, judge: Callable[[Result, Any], str] = judge_shape) -> list[str]:
    """What the studies of levels found: one row a data set and dial."""
    lines = [
        "| data set | levels, least to most diverse (Vendi; MMD) | shape | scores of levels "
        "| confirmed blend | gain over real rows, points | levels that harm | by the rule |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data, result in read_results(kind).items():
        for shape in result["shapes"] or [None]:
            dial = blends_of_any(result)[0]["dial"] if shape is None else shape["dial"]
            measured = [(level, result["measured"][f"{dial}={level}"]) for level in order_levels(result, dial)]
            told = ", ".join(f"{level} ({v['vendi_q1'][0]:.3g}; {v['mmd'][0]:.3f})" for level, v in measured)
            means = "" if shape is None else ", ".join(f"{100 * value:.1f}" for value in shape["means"])
            won = result["confirmed"]
            hurt = {c["level"] for c in result["harmful"] if c["dial"] == dial}
            verdict = "not tested" if shape is None else f"{shape['verdict']} ({tell_draws(shape)})"
            verdict += "" if shape is None or shape["interpreted"] else ", not interpreted"
            lines.append(
                f"| {data}{'' if kind != 'llm' else f', {dial}'} | {told} | {verdict} | {means} "
                f"| {name(won, dial) if won else 'none'} ({result['decision']}) | {points(won and won['gain'])} "
                f"| {', '.join(sorted(hurt)) or 'none'} | {judge(result, shape)} |"
            )
    return lines


def tell_draws(shape: dict[str, Any]) -> str:
    """Of how many draws, and the p-value of a turn."""
    p = shape["p_values"].get("inverted-U")
    return f"{shape.get('draws', 4)} draws{'' if p is None else f', turn p = {p:.2g}'}"


def tell_contrasts(kinds: tuple[str, ...]) -> list[str]:
    """Differences on the very rows at hand, at the largest amount that all levels have."""
    lines = ["| study | real rows a label | amount | difference | points | draws |", "|---|---|---|---|---|---|"]
    for kind in kinds:
        for data, result in read_results(kind).items():
            lines += [
                f"| {kind}, {data} | {each['rows']} | {each['amount']:.3g}x | {each['what']} | {points(each['gain'])} "
                f"| {each['draws']} |"
                for each in result["contrasts"]
            ]
    return lines


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best blend of a study on validation, at one number of real rows a label.

    ``place`` is where its level stands: least, interior or most diverse of its dial, or one of pools without an order.
    """

    study: str
    rows: int
    alone: float
    best: Cell
    place: str
    shift: float
    ends: tuple[str, str]


def find_best(kinds: tuple[str, ...]) -> Iterator[Found]:
    """The best blends of all studies of these kinds."""
    for kind in kinds:
        for data, result in read_results(kind).items():
            for rows in sizes(result):
                own = blends(result, rows)
                best = max(own, key=lambda c: c["score"])
                alone = [c for c in result["cells"] if c["kind"] == "real-only" and c["rows_per_label"] == rows]
                levels = [level for level in order_levels(result, best["dial"]) if level != "together"]
                ends = []
                for level in (levels[0], levels[-1]):
                    like = [c for c in own if (c["dial"], c["level"]) == (best["dial"], level)]
                    same = [c for c in like if abs(amount(c) / amount(best) - 1) < 0.25]
                    ends.append(points(same[0]["gain"]) if same else "")
                place = "least" if best["level"] == levels[0] else "most" if best["level"] == levels[-1] else "interior"
                yield Found(
                    study=f"{kind}, {data}",
                    rows=rows,
                    alone=alone[0]["score"],
                    best=best,
                    place="no order" if best["dial"] == "source" else place,
                    shift=result["measured"][f"{best['dial']}={best['level']}"]["mmd"][0],
                    ends=(ends[0], ends[1]),
                )


def tell_scarcity(kinds: tuple[str, ...]) -> list[str]:
    """The best blend on validation at each number of real rows a label."""
    lines = [
        "| study | real rows a label | real rows alone | best blend | its diversity | its shift (MMD) "
        "| gain, points (validation, best of its row) | least diverse level, same amount | most diverse, same amount |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {f.study} | {f.rows} | {100 * f.alone:.1f} | {name(f.best, '')} | {f.place} | {f.shift:.3f} "
        f"| {points(f.best['gain'])} | {f.ends[0]} | {f.ends[1]} |"
        for f in find_best(kinds)
    ]
    return lines


SCARCE = {"1": (1, 1), "2 to 4": (2, 4), "16 and more": (16, 10_000)}
SHIFTS = {"below 0.01": (-1.0, 0.01), "0.01 and more": (0.01, 9.0)}


def tell_practice(kinds: tuple[str, ...]) -> list[str]:
    """What did best by how scarce labels are and how large the shift of the best pool is."""
    lines = [
        "| real rows a label | shift of the best pool (MMD) | studies | diversity of the best blend | amount "
        "| gain over the real rows, points | lower ends above 0 |",
        "|---|---|---|---|---|---|---|",
    ]
    found = list(find_best(kinds))
    for (scarce, (few, many)), (told, (low, high)) in product(SCARCE.items(), SHIFTS.items()):
        own = [f for f in found if few <= f.rows <= many and low <= f.shift < high]
        if not own:
            continue
        places = Counter(f.place for f in own)
        amounts, gains = [amount(f.best) for f in own], [100 * f.best["gain"][0] for f in own]
        sure = sum(f.best["gain"][1] > 0 for f in own)
        lines.append(
            f"| {scarce} | {told} | {len(own)} | {', '.join(f'{place} {n}' for place, n in places.most_common())} "
            f"| {median(amounts):.3g}x ({min(amounts):.3g} to {max(amounts):.3g}) "
            f"| {median(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}) | {sure} of {len(own)} |"
        )
    return lines


def tell_drivers(kinds: tuple[str, ...]) -> list[str]:
    """How the scores of the levels of a shape go with their shift and with their diversity: rank correlations."""
    lines = [
        "| study | levels | score and shift (MMD) | score and diversity (Vendi) | least shift at | highest score at |",
        "|---|---|---|---|---|---|",
    ]
    found: list[tuple[float, float]] = []
    for kind in kinds:
        for data, result in read_results(kind).items():
            for shape in result["shapes"]:
                measured = [result["measured"][f"{shape['dial']}={level}"] for level in shape["levels"]]
                if len(measured) < 4:
                    continue
                shift, vendi = ([each[name][0] for each in measured] for name in ("mmd", "vendi_q1"))
                by_shift, by_vendi = (spearmanr(shape["means"], values).statistic for values in (shift, vendi))
                found.append((by_shift, by_vendi))
                low, high = shift.index(min(shift)), shape["means"].index(max(shape["means"]))
                lines.append(
                    f"| {kind}, {data}{'' if kind != 'llm' else ', ' + shape['dial']} | {len(measured)} "
                    f"| {by_shift:+.1f} | {by_vendi:+.1f} | level {low + 1} | level {high + 1} |"
                )
    told = [f"{median(own):+.1f} ({min(own):+.1f} to {max(own):+.1f})" for own in zip(*found, strict=True)]
    return [*lines, f"| median of {len(found)} | | {told[0]} | {told[1]} | | |"]


def tell_trainers() -> list[str]:
    """The probe's ranking of cells against the encoder's."""
    lines = [
        "| data set | cells | rank correlation | the probe's choice: encoder's score less its best "
        "| the encoder's choice: probe's score less its best | the probe's ranking |",
        "|---|---|---|---|---|---|",
    ]
    for data, result in read_results("trainers").items():
        rho, probe, encoder = rank_alike(result)
        lost = [theirs[ours.index(max(ours))] - max(theirs) for ours, theirs in ((probe, encoder), (encoder, probe))]
        verdict = {"supported": "trusted", "contradicted": "refused"}.get(judge_ranking(rho), "undecided")
        lines.append(f"| {data} | {len(probe)} | {rho:.2f} | {100 * lost[0]:+.1f} | {100 * lost[1]:+.1f} | {verdict} |")
    return lines


def tell_losses() -> list[str]:
    """Losses that adapt to the mixture against plain cross-entropy, on the best and the worst cell under it."""
    lines = ["| data set | cell | loss | difference to ce, points |", "|---|---|---|---|"]
    for data, result in read_results("losses").items():
        for each in result["contrasts"]:
            where, _, what = each["what"].partition(": ")
            lines.append(f"| {data} | {where} | {what.removesuffix(' less ce')} | {points(each['gain'])} |")
        lines.append(f"| {data} | | **adaptive losses help: {judge_losses(result)}** | |")
    return lines


def tell_shift() -> list[str]:
    """Near and far, narrow and wide pools at equal amounts."""
    lines = [
        "| data set | pool | Vendi | MMD to the real rows | gain at the amount of all four, points |",
        "|---|---|---|---|---|",
    ]
    for data, result in read_results("shift").items():
        found = pools_alike(result, max(sizes(result)))
        for level, cell in sorted(found.items()):
            measured = result["measured"][f"source={level}"]
            lines.append(
                f"| {data} | {level}, {amount(cell):.3g}x | {measured['vendi_q1'][0]:.1f} | {measured['mmd'][0]:.4f} "
                f"| {points(cell['gain'])} |"
            )
        score = {level: cell["score"] for level, cell in found.items()}
        near = mean(score[f"near-{width}"] - score[f"far-{width}"] for width in ("narrow", "wide"))
        wide = mean(score[f"{half}-wide"] - score[f"{half}-narrow"] for half in ("near", "far"))
        larger = "shift" if abs(near) > abs(wide) else "diversity"
        lines.append(
            f"| {data} | **near less far {100 * near:+.1f}, wide less narrow {100 * wide:+.1f}** | | "
            f"| {larger} weighs more; small shift is needed: {judge_near(result)} |"
        )
    return lines


def tell_sources() -> list[str]:
    """All sources together against the mean of single ones, at the largest amount of the grid that all have."""
    lines = [
        "| data set | real rows a label | amount | mean of single sources | together | difference, points "
        "| several are better |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, result in read_results("sources").items():
        for rows in sizes(result):
            cells = [c for c in blends(result, rows) if 9 < amount(c) < 11 and not c["whole"]]
            both = [c["score"] for c in cells if c["level"] == "together"]
            single = [c["score"] for c in cells if c["level"] != "together"]
            gap = both[0] - mean(single)
            lines.append(
                f"| {data} | {rows} | 10x | {100 * mean(single):.1f} | {100 * both[0]:.1f} | {100 * gap:+.1f} "
                f"| {judge_gap(gap) if rows == max(sizes(result)) else ''} |"
            )
    return lines


def tell_swaps() -> list[str]:
    """An LLM's paraphrases against swapped words."""
    lines = [
        "| data set | real rows a label | amount | ChatGPT, gain in points | swapped words | difference |",
        "|---|---|---|---|---|---|",
    ]
    for data, result in read_results("swaps").items():
        for rows in sizes(result):
            found = pools_alike(result, rows)
            gap = found["chatgpt"]["score"] - found["swapped"]["score"]
            lines.append(
                f"| {data} | {rows} | {amount(found['chatgpt']):.3g}x | {points(found['chatgpt']['gain'])} "
                f"| {points(found['swapped']['gain'])} | {100 * gap:+.1f} |"
            )
        lines.append(f"| {data} | | | **word swaps are as good: {judge_swaps(result)}** | | |")
    return lines


# --- claims ---
@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one study says of a claim: the verdict by its rule, the effect in points, and its draws."""

    study: str
    verdict: str
    effect: str
    draws: object = ""
    rows: int | str = ""


def tell_ends(result: Result, dial: str) -> str:
    """Gains over the real rows of the least diverse level, the best between, and the most diverse, at one amount."""
    cells = [c for c in blends(result, max(sizes(result))) if c["dial"] == dial]
    found, order = common_amount(cells), order_levels(result, dial)
    if not found:
        return ""
    inside = max((found[level] for level in order[1:-1]), key=lambda c: c["score"])
    told = {"least": found[order[0]], f"best between ({inside['level']})": inside, "most": found[order[-1]]}
    return "; ".join(f"{what} {points(cell['gain'])}" for what, cell in told.items())


def ask_middle(kinds: dict[str, Callable[[Result, Any], str]]) -> Iterator[Answer]:
    """Moderate diversity against both ends, on files."""
    for kind, judge in kinds.items():
        for data, result in read_results(kind).items():
            last = max(each["rows"] for each in result["contrasts"])
            told = [each for each in result["contrasts"] if each["rows"] == last]
            effect = "; ".join(f"{each['what']} {points(each['gain'])}" for each in told)
            verdict = judge(result, result["shapes"][0] if result["shapes"] else None)
            yield Answer(study=f"{kind}-{data}", verdict=verdict, effect=effect, draws=told[0]["draws"], rows=last)


def ask_written(dial: str) -> Iterator[Answer]:
    """Moderate diversity, set by a dial while an LLM writes."""
    for data, result in read_results("llm").items():
        for shape in result["shapes"]:
            if shape["dial"] == dial:
                effect = tell_ends(result, dial)
                yield Answer(
                    study=f"llm-{data}", verdict=judge_written(result, shape), effect=effect, draws=shape["draws"],
                    rows=max(sizes(result)),
                )  # fmt: skip


def ask_paraphrases() -> Iterator[Answer]:
    """The more paraphrases of each source, the less diverse: whether a number between is best."""
    for data, result in read_results("paraphrases").items():
        shape = next(iter(result["shapes"]), None)
        yield Answer(
            study=f"paraphrases-{data}", verdict=judge_shape(result, shape), effect=tell_ends(result, "paraphrase"),
            draws=shape["draws"] if shape else "", rows=max(sizes(result)),
        )  # fmt: skip


def ask_end(place: int) -> Iterator[Answer]:
    """Whether the least (0) or most (-1) diverse level of a dial was shown to be worse than the real rows alone."""
    for kind in ("diversity", "turn", "paraphrases", "llm"):
        for data, result in read_results(kind).items():
            for dial in sorted({str(c["dial"]) for c in blends(result)}):
                level, rows = order_levels(result, dial)[place], max(sizes(result))
                own = [c for c in blends(result, rows) if (c["dial"], c["level"]) == (dial, level)]
                worst = min(own, key=lambda c: c["gain"][0])
                hurts = any((c["dial"], c["level"]) == (dial, level) for c in result["harmful"])
                helps = worst["gain"][1] > 0
                yield Answer(
                    study=f"{kind}-{data}" + (f", {dial}" if kind == "llm" else ""),
                    verdict="supported" if hurts else "contradicted" if helps else "undecided",
                    effect=f"{name(worst, dial)}: {points(worst['gain'])}", draws=worst["draws"], rows=rows,
                )  # fmt: skip


def ask_amount() -> Iterator[Answer]:
    """Whether a share below all that a pool holds is best: by the best blend on validation."""
    for kind in ("diversity", "turn", "paraphrases", "sources", "llm"):
        for data, result in read_results(kind).items():
            best = result["best"] or max(blends(result, max(sizes(result))), key=lambda c: c["score"])
            verdict = "undecided" if best["gain"][1] <= 0 else "contradicted" if best["whole"] else "supported"
            yield Answer(
                study=f"{kind}-{data}", verdict=verdict,
                effect=f"best: {name(best, '')}, {points(best['gain'])}", draws=best["draws"],
                rows=best["rows_per_label"],
            )  # fmt: skip


def ask_contrasts(
    kind: str, judge: Callable[[Result], str], *, most: int | None = None, at: Callable[..., int] = max
) -> Iterator[Answer]:
    """A rule about the differences of a kind of study, with those at one number of real rows a label.

    Args:
        kind: of study.
        judge: the rule.
        most: so many differences are told, the largest first; all where None.
        at: the number of real rows that the rule looks at, largest (max) or smallest (min).
    """
    for data, result in read_results(kind).items():
        last = at(each["rows"] for each in result["contrasts"])
        told = [each for each in result["contrasts"] if each["rows"] == last]
        told = told if most is None else sorted(told, key=lambda each: -each["gain"][0])[:most]
        yield Answer(
            study=f"{kind}-{data}", verdict=judge(result), draws=told[0]["draws"], rows=last,
            effect="; ".join(f"{each['what']} {points(each['gain'])}" for each in told),
        )  # fmt: skip


def ask_ranking() -> Iterator[Answer]:
    """Whether the cheap probe ranks cells as the tuned encoder does."""
    for data, result in read_results("trainers").items():
        rho, probe, _ = rank_alike(result)
        effect = f"rank correlation {rho:.2f} over {len(probe)} cells"
        yield Answer(study=f"trainers-{data}", verdict=judge_ranking(rho), effect=effect, rows=max(sizes(result)))


def ask_causal() -> Iterator[Answer]:
    """Whether any blend beats the real rows alone where a causal language model is tuned."""
    for data, result in read_results("causal").items():
        own = blends(result)
        best, low = max(own, key=lambda c: c["score"]), max(c["gain"][1] for c in own)
        verdict = "supported" if low > 0 else "contradicted" if all(c["gain"][2] < 0 for c in own) else "undecided"
        effect = f"best: {name(best, '')}, {points(best['gain'])}"
        yield Answer(
            study=f"causal-{data}", verdict=verdict, effect=effect, draws=best["draws"], rows=max(sizes(result))
        )


def judge_together(result: Result) -> str:
    """The rule of several sources."""
    return judge_gap(largest(result, "together less the mean of single sources")["gain"][0])


def list_claims() -> dict[str, list[Answer]]:
    """Each claim with what every study says of it."""
    asked = {
        "Moderate diversity is best: levels chosen from files at equal size": ask_middle(
            {"turn": judge_turn, "diversity": judge_shape}
        ),
        "Moderate diversity is best: temperature, while an LLM writes": ask_written("sampling"),
        "Moderate diversity is best: topics, while an LLM writes": ask_written("topics"),
        "Moderate diversity is best: paraphrase replacement, while an LLM writes": ask_written("paraphrase"),
        "Some paraphrases of each source are best, not many and not one": ask_paraphrases(),
        "The most diverse level is worse than the real rows alone": ask_end(-1),
        "The least diverse level is worse than the real rows alone (not preregistered)": ask_end(0),
        "Little distribution shift is needed": ask_contrasts("shift", judge_near),
        "A share below all of the pool is best": ask_amount(),
        "Losses that adapt to the mixture help": ask_contrasts("losses", judge_losses, most=2),
        "Several sources beat one": ask_contrasts("sources", judge_together),
        "Swapped words do as well as an LLM": ask_contrasts("swaps", judge_swaps, at=min),
        "The cheap probe ranks cells as a tuned encoder does": ask_ranking(),
        "Generated pairs help a causal language model": ask_causal(),
    }
    return {claim: list(answers) for claim, answers in asked.items()}


def write_claims() -> str:
    """How many studies support and contradict each claim, and what each of them measured."""
    claims = {claim: answers for claim, answers in list_claims().items() if answers}
    verdicts = ("supported", "contradicted", "undecided")
    short = ["| claim | supported | contradicted | undecided |", "|---|---|---|---|"]
    long = [
        "| claim | study | here | effect, points [95%] | draws | real rows a label |",
        "|---|---|---|---|---|---|",
    ]
    for claim, answers in claims.items():
        counts = Counter(answer.verdict.partition(" ")[0] for answer in answers)
        short.append(f"| {claim} | {' | '.join(str(counts[verdict]) for verdict in verdicts)} |")
        for number, a in enumerate(answers):
            said = claim if not number else ""
            long.append(f"| {said} | `{a.study}` | {a.verdict} | {a.effect} | {a.draws} | {a.rows} |")
    return "\n".join(short) + "\n\n### What each study says\n\n" + "\n".join(long)


def write_headline() -> str:
    """What all studies say in one sentence, for the README."""
    results = [json.loads(path.read_bytes()) for path in HERE.glob("*/result.json")]
    gains = [100 * each["confirmed"]["gain"][0] for each in results if each["confirmed"] and each["decision"] == "use"]
    turns = [judge_turn(each, each["shapes"][0]) for each in read_results("turn").values()]
    shifts = read_results("shift").values()
    near = sum(largest(each, "near less far")["gain"][1] > 0 for each in shifts)
    hot = [answer.verdict for answer in ask_end(-1) if answer.study.endswith(", sampling")]
    confirmed = sum(each["confirmed"] is not None for each in results)
    return (
        f"In {len(results)} preregistered [studies](docs/evidence.md) of pools that LLMs wrote, {len(gains)} of "
        f"{confirmed} confirmed blends gain {min(gains):.0f} to {max(gains):.0f} points over scarce real rows alone; "
        f"moderate diversity is best in {turns.count('supported')} of {len(turns)} data sets, the most diverse "
        f"sampling was shown to hurt in {hot.count('supported')} of {len(hot)}, and rows near to the real "
        f"ones beat rows far from them in {near} of {len(shifts)}."
    )


def replace_between(path: Path, begin: str, end: str, content: str) -> None:
    """Write what stands between two marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{content}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Write the tables into the page, and the headline into the README."""
    parts = {
        "For practitioners": tell_practice(("diversity", "turn", "paraphrases", "sources", "llm")),
        "Diversity by selection at equal size": tell_levels("diversity"),
        "The turn, with twelve draws": tell_levels("turn", judge_turn),
        "The middle against the ends, on the very rows at hand": tell_contrasts(("diversity", "turn")),
        "Diversity that is set while the embedded LLM writes": tell_levels("llm", judge_written),
        "Paraphrases of each source": tell_levels("paraphrases"),
        "How scarce labels are": tell_scarcity(("diversity", "turn", "paraphrases", "sources", "llm")),
        "Shift or diversity": tell_shift(),
        "What the scores of levels go with": tell_drivers(("diversity", "turn", "paraphrases", "llm")),
        "Several sources": tell_sources(),
        "Without an LLM": tell_swaps(),
        "Losses that adapt to the mixture": tell_losses(),
        "The probe's ranking of cells": tell_trainers(),
        "Differences with their intervals": tell_contrasts(("shift", "sources", "swaps")),
    }
    tables = "\n\n".join(f"### {title}\n\n" + "\n".join(lines) for title, lines in parts.items() if len(lines) > 2)
    replace_between(PAGE, "<!-- claims -->", "<!-- end of claims -->", write_claims())
    replace_between(PAGE, "<!-- tables -->", "<!-- end of tables -->", tables)
    replace_between(PAGE.parents[1] / "README.md", "<!-- evidence -->", "<!-- end -->", write_headline())


if __name__ == "__main__":
    main()
