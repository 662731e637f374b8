"""Write the tables of docs/evidence.md from the results of the studies, by the rules of their preregistrations.

    python studies/evidence.py

Tables stand between the lines ``<!-- tables -->`` and ``<!-- end of tables -->``; the prose around them stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

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


def name(cell: Cell) -> str:
    """Level and amount."""
    return f"{cell['level']}, {'all of it, ' if cell['whole'] else ''}{amount(cell):.3g}x"


def blends(result: Result, rows: int | None = None) -> list[Cell]:
    """The blends of this pool's scope, at so many real rows a label."""
    cells = [c for c in result["cells"] if c["kind"] == "blend" and c["scope"] == "this pool" and c["gain"]]
    return [c for c in cells if rows is None or c["rows_per_label"] == rows]


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


def judge_shape(result: Result) -> str:
    """The rule of the studies of levels."""
    if not result["shapes"]:
        return "undecided (too few rows for a shape)"
    shape, won = result["shapes"][0], result["confirmed"]
    level, ends = won and won["level"], (shape["levels"][0], shape["levels"][-1])
    sure = won is not None and won["gain"][1] > 0
    if shape["verdict"] == "inverted-U" and sure and level not in ends:
        return "supported"
    if shape["verdict"] == "rising" or (sure and level == ends[1]):
        return "contradicted"
    return "undecided"


def tell_levels(kind: str) -> list[str]:
    """What the studies of levels found: one row a data set, then the best level at each number of real rows."""
    lines = [
        "| data set | measured diversity (Vendi), least to most | shape at share 0.75 | scores of levels "
        "| confirmed blend | gain over real rows, points | levels that harm | middle helps, top hurts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data, result in read_results(kind).items():
        shape = result["shapes"][0] if result["shapes"] else {"verdict": "not tested", "means": []}
        values = [numbers["vendi_q1"][0] for key, numbers in result["measured"].items() if "=" in key]
        vendi = ", ".join(f"{value:.3g}" for value in sorted(values))
        means = ", ".join(f"{100 * value:.1f}" for value in shape["means"])
        won = result["confirmed"]
        hurt = {c["level"] for c in result["harmful"]}
        lines.append(
            f"| {data} | {vendi} | {shape['verdict']} | {means} "
            f"| {name(won) if won else 'none'} ({result['decision']}) | {points(won and won['gain'])} "
            f"| {', '.join(sorted(hurt)) or 'none'} | {judge_shape(result)} |"
        )
    return lines


def tell_scarcity(kinds: tuple[str, ...]) -> list[str]:
    """The best blend on validation at each number of real rows a label."""
    lines = [
        "| study | real rows a label | real rows alone | best blend | gain, points (validation, best of its row) "
        "| least diverse level, same amount | most diverse, same amount |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        for data, result in read_results(kind).items():
            levels = list(dict.fromkeys(c["level"] for c in blends(result) if c["level"] != "together"))
            levels.sort(key=lambda level: result["measured"][f"{blends(result)[0]['dial']}={level}"]["vendi_q1"][0])
            for rows in sizes(result):
                own = blends(result, rows)
                best = max(own, key=lambda c: c["score"])
                alone = [c for c in result["cells"] if c["kind"] == "real-only" and c["rows_per_label"] == rows]
                ends = []
                for level in (levels[0], levels[-1]):
                    same = [c for c in own if c["level"] == level and abs(amount(c) / amount(best) - 1) < 0.25]
                    ends.append(points(same[0]["gain"]) if same else "")
                lines.append(
                    f"| {kind}, {data} | {rows} | {100 * alone[0]['score']:.1f} | {name(best)} "
                    f"| {points(best['gain'])} | {ends[0]} | {ends[1]} |"
                )
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
        harmful = any(str(c["level"]).startswith("far") for c in result["harmful"])
        verdict = "supported" if harmful else judge_gap(near)
        larger = "shift" if abs(near) > abs(wide) else "diversity"
        lines.append(
            f"| {data} | **near less far {100 * near:+.1f}, wide less narrow {100 * wide:+.1f}** | | "
            f"| {larger} weighs more; small shift is needed: {verdict} |"
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
        gaps = []
        for rows in sizes(result):
            found = pools_alike(result, rows)
            gaps.append(found["chatgpt"]["score"] - found["swapped"]["score"])
            lines.append(
                f"| {data} | {rows} | {amount(found['chatgpt']):.3g}x | {points(found['chatgpt']['gain'])} "
                f"| {points(found['swapped']['gain'])} | {100 * gaps[-1]:+.1f} |"
            )
        verdict = "supported" if max(gaps) < POINT else "contradicted" if gaps[0] > POINT else "undecided"
        lines.append(f"| {data} | | | **word swaps are as good: {verdict}** | | |")
    return lines


def main() -> None:
    """Write the tables into the page."""
    parts = {
        "Diversity by selection at equal size": tell_levels("diversity"),
        "Paraphrases of each source": tell_levels("paraphrases"),
        "How scarce labels are": tell_scarcity(("diversity", "paraphrases", "sources")),
        "Shift or diversity": tell_shift(),
        "Several sources": tell_sources(),
        "Without an LLM": tell_swaps(),
    }
    tables = "\n\n".join(f"### {title}\n\n" + "\n".join(lines) for title, lines in parts.items() if len(lines) > 2)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- tables -->")
    _, _, after = rest.partition("<!-- end of tables -->")
    PAGE.write_text(f"{before}<!-- tables -->\n\n{tables}\n\n<!-- end of tables -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
