from collections import Counter

from cuvee.recommend import plan_grid
from cuvee.recommend.search import list_draws
from cuvee.records import Cell, Level

LEVELS = [Level(dial="sampling", name=n, rank=i) for i, n in enumerate(("0.2", "1.0"))]


def plan(*, shares=(0.5, 0.75), sampling=2, training=3, base_share=0.75, is_deterministic=False, whole=False, **cell):
    like = Cell(**({"kind": "real-only", "rows_per_label": 4} | cell))
    amounts = [*((share, False) for share in shares), *([(0.9, True)] if whole else [])]
    draws = list_draws([0, 1], range(sampling), training)
    return plan_grid(
        dict.fromkeys(LEVELS, amounts), dict.fromkeys(LEVELS, draws), like=like, base_share=base_share,
        is_deterministic=is_deterministic,
    )  # fmt: skip


def test_grid_holds_every_cell_and_baseline_at_paired_draws():
    planned = plan()
    cells = Counter(p.cell for p in planned)
    assert set(cells.values()) == {2 * 2 * 3}
    kinds = Counter(c.kind for c in cells)
    assert kinds == {"real-only": 1, "real-duplicated": 2, "blend": 4, "synthetic-only": 2}
    draws = {c: {p.draw for p in planned if p.cell == c} for c in cells}
    assert len(set(map(frozenset, draws.values()))) == 1


def test_each_setting_changes_the_plan():
    assert {p.cell.trainer for p in plan(trainer="encoder")} == {"encoder"}
    assert {p.cell.loss for p in plan(loss="source_weight")} == {"source_weight"}
    assert len(plan(sampling=1)) == len(plan()) / 2
    assert len(plan(training=1)) == len(plan()) / 3
    assert {p.cell.share for p in plan(base_share=0.5) if p.cell.kind == "synthetic-only"} == {0.5}
    assert {p.cell.rows_per_label for p in plan(rows_per_label=9)} == {9}
    assert {p.cell.share for p in plan(shares=[0.5]) if p.cell.kind == "blend"} == {0.5}


def test_what_is_the_same_in_every_draw_is_trained_once():
    counts = Counter(item.cell for item in plan(training=1, whole=True, is_deterministic=True))
    assert {(c.kind, c.whole, n) for c, n in counts.items()} == {
        ("real-only", False, 1), ("real-duplicated", False, 1), ("blend", True, 1), ("blend", False, 4),
        ("synthetic-only", False, 4),
    }  # fmt: skip
