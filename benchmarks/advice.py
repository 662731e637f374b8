"""The regret of advice: what choosing by each policy costs, on real data whose true answers are known.

    python benchmarks/advice.py record DATA --worlds FOLDER [--only SET ...]
    python benchmarks/advice.py replay --worlds FOLDER [--repeats 20] [--searches tpe gp] [--jobs 2] [--check]

``record`` embeds the data sets of the folder ``DATA`` and trains every cell of every world (``advice_worlds.py``): two
to five draws of real rows for each number of rows a label. ``replay`` trains nothing: a study draws its subsamples and
held-out items from a world, its trials go to ``cuvee.recommend``, and each policy chooses a pool and an amount, or the
real rows alone. Regret is what the choice truly scores less than the best cell, the real rows and repeated ones among
them. Repeats are seeded. With ``--check`` the exit code is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from advice_worlds import PLANS, TOGETHER, World, load_set, load_world, record_world, save_world
from cuvee.encoders import load_encoder
from cuvee.recommend import confirm_cell, recommend_mixture
from cuvee.recommend.confirming import judge_confirmation, plan_looks
from cuvee.records import UNORDERED, Advice, Cell, Composition, Draw, Estimate, Scores, Trial

POINT = 0.01


@dataclass(frozen=True)
class Budget:
    """What a study may spend: held-out items, and subsamples of each cell and at most of the confirmation."""

    name: str
    validation: int
    test: int
    subsamples: int
    confirm: int


BUDGETS = (
    Budget("small", 100, 200, 3, 12),
    Budget("demo", 900, 1100, 5, 12),
    Budget("large", 3000, 3000, 8, 12),
)


# --- a replayed study -------------------------------------------------------------------------------------
def make_trials(
    world: World, cells: Iterable[Cell], draws: np.ndarray, items: np.ndarray, part: Literal["validation", "test"]
) -> list[Trial]:
    """The trials of cells at these subsamples of the world, on these of its items."""
    trials = []
    for cell in cells:
        answers = world.answers[cell]
        rows = answers[:1] if len(answers) == 1 else answers[draws]
        for number, row in enumerate(rows):
            correct = row[items]
            scores = Scores(
                n=items.size, values={"accuracy": Estimate(value=float(correct.mean()), n=items.size)}, correct=correct
            )
            composition = Composition(
                share=cell.share if cell.kind == "blend" else 0.0, real_rows=1, synthetic_rows=1, unique_rows=2,
                most_repeats=1, label_counts={},
            )  # fmt: skip
            draw = Draw(generation=0, sampling=number, training=0)
            trials.append(Trial(cell=cell, draw=draw, composition=composition, steps=0, part=part, scores=scores))
    return trials


def run_study(world: World, budget: Budget, rng: np.random.Generator) -> tuple[Advice, list[Trial]]:
    """The advice of a study of this world, and its trials: a grid on validation items, the winner confirmed on others.

    A cell whose rows are the same in every subsample is trained once, and so looked at once.
    """
    ranks = {UNORDERED: [*world.diversity, TOGETHER]}
    size = world.answers[world.real].shape[1]
    most = max(len(answers) for answers in world.answers.values())
    draws, items = rng.integers(most, size=budget.subsamples), rng.integers(size, size=budget.validation)
    trials = make_trials(world, world.answers, draws, items, "validation")
    draft = recommend_mixture(trials, level_ranks=ranks)
    assert draft.best is not None
    best = draft.best.cell
    cells = [
        c for c in world.answers if c in (best, world.real) or (c.kind, c.share) == ("real-duplicated", best.share)
    ]
    draws, items = rng.integers(most, size=budget.confirm), rng.integers(size, size=budget.test)
    looks = () if best.whole else plan_looks(budget.confirm)
    for number, taken in enumerate(looks or (budget.confirm,), start=1):
        confirmed = confirm_cell(make_trials(world, cells, draws[:taken], items, "test"), best, fresh_draws=True)
        confirmed = replace(confirmed, looks=looks[:number], planned=budget.confirm if looks else 0)
        if judge_confirmation(confirmed, draft.best.gains, delta=POINT, alpha=0.05).is_settled:
            break
    return recommend_mixture(trials, level_ranks=ranks, confirmation=confirmed), trials


# --- policies ---------------------------------------------------------------------------------------------
REAL, POOLED, PAPER, MOST, LEAST = (
    "real rows alone", "everything pooled, all rows", "middle diversity, share .5", "most diverse pool, all rows",
    "least diverse pool, all rows",
)  # fmt: skip
HIGHEST, REPEATING = "highest mean on validation", "highest mean, repeated real rows too"
VERDICT, LEAN = "Cuvée's verdict", "Cuvée's lean"
POLICIES = (REAL, POOLED, PAPER, MOST, LEAST, HIGHEST, REPEATING, VERDICT, LEAN)
SAMPLERS = {"tpe": "Optuna's TPE", "gp": "Optuna's GP"}


def choose_all(world: World, advice: Advice) -> dict[str, Cell]:
    """What each policy chooses."""
    ordered = sorted(world.diversity, key=lambda level: world.diversity[level])
    whole = {c.level: c for c in world.blends if c.whole}
    pooled = whole.get(TOGETHER, whole[ordered[0]])
    middle = ordered[(len(ordered) - 1) // 2]
    even = min((c for c in world.blends if c.level == middle), key=lambda c: abs(c.share - 0.5))
    every = {s.cell: s.accuracy for s in advice.cells}
    seen = {cell: value for cell, value in every.items() if cell.kind in ("blend", "real-only")}
    assert advice.best is not None
    assert advice.lean is not None
    used = advice.best.cell if advice.decision == "use" else world.real
    leant = advice.lean.cell
    if advice.lean.gain <= 0:
        repeated = (c for c in world.answers if (c.kind, c.share) == ("real-duplicated", leant.share))
        leant = next(repeated) if advice.lean.repeated > 0 else world.real
    return {
        REAL: world.real,
        POOLED: pooled,
        PAPER: even,
        MOST: whole[ordered[-1]],
        LEAST: whole[ordered[0]],
        HIGHEST: max(seen, key=lambda cell: seen[cell]),
        REPEATING: max(every, key=lambda cell: every[cell]),
        VERDICT: used,
        LEAN: used if advice.decision == "use" else leant,
    }


def search_cells(world: World, trials: Sequence[Trial], sampler: str, seed: int) -> Cell:
    """What a search by Optuna chooses after as many trials as the grid has: the cell with the best mean of its answers.

    It asks for a pool, or none, and an amount on the log scale of the grid; a pool that is smaller than the amount is
    taken as a whole. Each answer is the score of one of the grid's subsamples on validation, drawn at random.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}
    study = optuna.create_study(direction="maximize", sampler=kinds[sampler](seed=seed))
    scores: dict[Cell, list[float]] = {}
    for trial in trials:
        scores.setdefault(trial.cell, []).append(trial.scores.values["accuracy"].value)
    amounts = {
        level: sorted((c for c in world.blends if c.level == level), key=lambda c: c.amount)
        for level in [*world.diversity, TOGETHER] if any(c.level == level for c in world.blends)
    }  # fmt: skip
    most, rng, seen = max(map(len, amounts.values())), np.random.default_rng(seed), dict[Cell, list[float]]()
    for _ in trials:
        asked = study.ask()
        level = asked.suggest_categorical("pool", ["none", *amounts])
        place = asked.suggest_int("amount", 0, most - 1)
        cell = world.real if level == "none" else amounts[level][min(place, len(amounts[level]) - 1)]
        score = float(rng.choice(scores[cell]))
        seen.setdefault(cell, []).append(score)
        study.tell(asked, score)
    return max(seen, key=lambda cell: np.mean(seen[cell]))


# --- repeats ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Result:
    """What came of one replayed study. Gains are true ones, over the real rows alone.

    Attributes:
        gains: of what each policy chose.
        best: of the best cell, real rows and repeated ones among them.
        best_amount: of the best amount of the pool that the lean chose, at least 0.
        whole: of all rows of that pool.
        takes: whether verdict and lean chose none of a pool, part of it or all.
        covered: of the cells' intervals on validation, whether each holds the true gain.
        confirmed: whether the confirmation's does.
    """

    name: str
    rows_per_label: int
    world: int
    decision: str
    gains: dict[str, float]
    best: float
    best_amount: float
    whole: float
    takes: dict[str, Literal["none", "part", "all"]]
    covered: tuple[bool, ...]
    confirmed: bool


def replay(path: Path, repeats: int, budget: Budget, searches: Sequence[str]) -> list[Result]:
    """Replayed studies of one world."""
    world = load_world(path)
    return [replay_once(world, budget, seed, searches) for seed in range(repeats)]


def replay_each(path: Path, repeats: int, budget: Budget) -> dict[str, list[Result]]:
    """Replayed studies of each pool of one world by itself."""
    world = load_world(path)
    return {
        level: [replay_once(world.only(level), budget, seed) for seed in range(repeats)] for level in world.diversity
    }


def replay_once(world: World, budget: Budget, seed: int, searches: Sequence[str] = ()) -> Result:
    """One study, and what each policy makes of it."""
    truth = {cell: value - world.truth[world.real] for cell, value in world.truth.items()}
    rng = np.random.default_rng([12, seed, world.number, world.rows_per_label, list(PLANS).index(world.name)])
    advice, trials = run_study(world, budget, rng)
    chosen = choose_all(world, advice) | {SAMPLERS[s]: search_cells(world, trials, s, seed) for s in searches}
    assert advice.confirmation is not None
    assert advice.lean is not None
    own = [c for c in world.blends if c.level == (chosen[LEAN].level or advice.lean.cell.level)]
    gain = advice.confirmation.gains[0]
    return Result(
        name=world.name,
        rows_per_label=world.rows_per_label,
        world=world.number,
        decision=advice.decision,
        gains={policy: truth[cell] for policy, cell in chosen.items()},
        best=max(truth.values()),
        best_amount=max(0.0, *(truth[c] for c in own)),
        whole=next(truth[c] for c in own if c.whole),
        takes={
            policy: "none" if chosen[policy].kind != "blend" else "all" if chosen[policy].whole else "part"
            for policy in (VERDICT, LEAN)
        },
        covered=tuple(
            s.gains[0].low <= truth[s.cell] <= s.gains[0].high for s in advice.cells if s.cell.kind == "blend"
        ),
        confirmed=gain.low <= truth[advice.confirmation.cell] <= gain.high,
    )


def error_by_world(results: Sequence[Result], values: np.ndarray) -> float:
    """Standard error of a mean over results, those of one world being one observation."""
    worlds: dict[tuple[str, int, int], list[float]] = {}
    for result, value in zip(results, values, strict=True):
        worlds.setdefault((result.name, result.rows_per_label, result.world), []).append(float(value))
    means = [np.mean(own) for own in worlds.values()]
    return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")


# --- tables -----------------------------------------------------------------------------------------------
def tell_policies(budget: Budget, results: Sequence[Result]) -> tuple[list[str], bool]:
    """The table of policies at one budget, and whether the bar is met."""
    policies = sorted(results[0].gains, key=[*POLICIES[:7], *SAMPLERS.values(), *POLICIES[7:]].index)
    regret = {p: np.array([(r.best - r.gains[p]) / POINT for r in results]) for p in policies}
    lines = [
        f"### {budget.name}: {budget.validation} validation and {budget.test} test items, {budget.subsamples} "
        f"subsamples, at most {budget.confirm} to confirm",
        "",
        "| policy | regret, points | harms by over 1 point | leaves over 2 points |",
        "|---|---|---|---|",
    ]
    for policy in policies:
        harm = np.mean([r.gains[policy] < -POINT for r in results])
        lines.append(
            f"| {policy} | {regret[policy].mean():.2f} ± {error_by_world(results, regret[policy]):.2f} | "
            f"{100 * harm:.1f}% | {100 * np.mean(regret[policy] > 2.0):.0f}% |"
        )
    rival = min((p for p in policies if p != LEAN), key=lambda p: regret[p].mean())
    more = regret[LEAN] - regret[rival]
    error = error_by_world(results, more)
    harms = np.mean([r.gains[VERDICT] < -POINT for r in results])
    met = more.mean() <= error and harms <= 0.025
    lines += [
        "",
        f"The lean's regret less that of the best other policy ({rival}): {more.mean():+.2f} ± {error:.2f} points. "
        f"Bar: {'met' if met else 'MISSED'}.",
        "",
    ]
    return lines, bool(met)


def tell_settings(budget: Budget, results: Sequence[Result]) -> list[str]:
    """Each data set and number of rows: regret of three policies, nearness of the amount, coverage."""
    lines = [
        f"### By data set, {budget.name}",
        "",
        "| data set | rows a label | best gain | regret: lean | verdict | highest mean | pooled | "
        "amount within 1 point | cell within 1 point | use / do not use / not settled | "
        "validation intervals cover | confirmations cover |",
        "|" + "---|" * 12,
    ]
    reached = []
    for (name, rows), group in itertools.groupby(results, key=lambda r: (r.name, r.rows_per_label)):
        own = list(group)

        def regret(policy: str, own: list[Result] = own) -> str:
            return f"{np.mean([(r.best - r.gains[policy]) / POINT for r in own]):.2f}"

        near = np.mean([r.best_amount - r.gains[LEAN] <= POINT for r in own])
        nearest = np.mean([r.best - r.gains[LEAN] <= POINT for r in own])
        reached.append(near >= 0.9)
        decided = [np.mean([r.decision == d for r in own]) for d in ("use", "do-not-use", "underpowered")]
        lines.append(
            f"| {name} | {rows} | {np.mean([r.best for r in own]) / POINT:.1f} | {regret(LEAN)} | {regret(VERDICT)} | "
            f"{regret(HIGHEST)} | {regret(POOLED)} | {100 * near:.0f}% | {100 * nearest:.0f}% | "
            f"{' / '.join(f'{100 * d:.0f}' for d in decided)} | "
            f"{100 * np.mean([np.mean(r.covered) for r in own]):.1f}% | "
            f"{100 * np.mean([r.confirmed for r in own]):.0f}% |"
        )
    every = np.array([np.mean(r.covered) for r in results])
    again = np.array([float(r.confirmed) for r in results])
    told = [f"{100 * own.mean():.1f}% ± {100 * error_by_world(results, own):.1f}" for own in (every, again)]
    lines += ["", f"The advised amount is within 1 point of the best amount of its pool in at least 9 of 10 studies in "
              f"{sum(reached)} of {len(reached)} rows of this table."]  # fmt: skip
    lines += ["", f"Intervals that hold the true gain: {told[0]} on validation, {told[1]} of confirmations.", ""]
    return lines


def tell_pools(budget: Budget, found: dict[tuple[str, int, str], list[Result]]) -> list[str]:
    """Pools with wrong labels, each studied by itself: what more of it does, and what is advised."""
    lines = [
        f"### Pools with wrong labels, each in a study of its own, {budget.name}",
        "",
        "| data set | rows a label | pool | gain of the best amount | of all | lean: none / part / all | "
        "verdict: none / part / all | regret of the lean | lean takes all where less is better | verdict does |",
        "|" + "---|" * 10,
    ]
    for (name, rows, level), own in found.items():
        parts = []
        for policy in (LEAN, VERDICT):
            takes = Counter(r.takes[policy] for r in own)
            parts.append(" / ".join(f"{100 * takes[part] / len(own):.0f}" for part in ("none", "part", "all")))
        wrong = [
            f"{sum(r.takes[p] == 'all' and r.best_amount - r.whole > POINT for r in own)} of "
            f"{sum(r.best_amount - r.whole > POINT for r in own)}"
            for p in (LEAN, VERDICT)
        ]
        regret = np.mean([r.best - r.gains[LEAN] for r in own]) / POINT
        lines.append(
            f"| {name.partition(',')[0]} | {rows} | {level} | {np.mean([r.best for r in own]) / POINT:+.1f} | "
            f"{np.mean([r.whole for r in own]) / POINT:+.1f} | {parts[0]} | {parts[1]} | {regret:.2f} | {wrong[0]} | "
            f"{wrong[1]} |"
        )
    return [*lines, ""]


# --- commands ---------------------------------------------------------------------------------------------
def file_of(folder: Path, name: str, rows: int, number: int) -> Path:
    """Where a world is kept."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}-{rows}-{number}.npz"


def record(options: argparse.Namespace) -> int:
    """Embed and train."""
    encoder = load_encoder(options.encoder, cache=options.worlds)
    for name in options.only:
        data = load_set(PLANS[name], name, options.data, encoder.encode)
        pools = ", ".join(f"{level} {len(p.labels)}" for level, p in data.pools.items())
        print(f"{name}: {pools}; {len(data.items.labels)} items, {len(data.real.labels)} real rows", flush=True)
        wanted = [rows for rows in PLANS[name].rows_per_label if rows in (options.rows or [rows])]
        for number, rows in itertools.product(options.numbers or range(PLANS[name].worlds), wanted):
            path = file_of(options.worlds, name, rows, number)
            if not path.exists():
                start = time.process_time()
                save_world(record_world(data, rows, number), path)
                print(f"{path.name}: {time.process_time() - start:.0f} CPU seconds", flush=True)
    return 0


def run_replay(options: argparse.Namespace) -> int:
    """Replay and print the tables."""
    paths = [
        path
        for name in options.only
        for rows in PLANS[name].rows_per_label
        for number in range(100)
        if (path := file_of(options.worlds, name, rows, number)).exists()
    ]
    settings = Counter(path.stem.rpartition("-")[0] for path in paths)
    repeats = [-(-options.repeats // settings[path.stem.rpartition("-")[0]]) for path in paths]
    harmed = [(path, times) for path, times in zip(paths, repeats, strict=True) if "wrong-labels" in path.name]
    met = True
    with ExitStack() as stack:
        run = map
        if options.jobs > 1:
            pool = ProcessPoolExecutor(options.jobs, initializer=threadpool_limits, initargs=(1,))
            run = stack.enter_context(pool).map
        for budget in BUDGETS:
            if budget.name not in options.budgets:
                continue
            found = run(partial(replay, budget=budget, searches=options.searches), paths, repeats)
            results = [result for own in found for result in own]
            lines, is_met = tell_policies(budget, results)
            met = met and is_met
            print("\n".join([*lines, *tell_settings(budget, results)]), flush=True)
            if harmed and budget.name == "demo":
                pools: dict[tuple[str, int, str], list[Result]] = {}
                for each in run(partial(replay_each, budget=budget), *zip(*harmed, strict=True)):
                    for level, own in each.items():
                        pools.setdefault((own[0].name, own[0].rows_per_label, level), []).extend(own)
                print("\n".join(tell_pools(budget, pools)), flush=True)
    return 1 if options.check and not met else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, or replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "replay"):
        command = commands.add_parser(name)
        command.add_argument("--worlds", type=Path, required=True, help="the folder of recorded worlds and vectors")
        command.add_argument("--only", nargs="+", choices=list(PLANS), default=list(PLANS))
        if name == "record":
            command.add_argument("data", type=Path, help="the folder of data sets")
            command.add_argument("--numbers", type=int, nargs="+", help="draws of real rows, by default as planned")
            command.add_argument("--rows", type=int, nargs="+", help="rows a label; by default all that a data set has")
            command.add_argument("--encoder", default="minilm")
        else:
            command.add_argument("--budgets", nargs="+", default=[b.name for b in BUDGETS])
            command.add_argument(
                "--repeats", type=int, default=20, help="studies of each number of rows a label at least"
            )
            command.add_argument("--searches", nargs="*", choices=list(SAMPLERS), default=["tpe"])
            command.add_argument("--jobs", type=int, default=2)
            command.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return record(options) if options.command == "record" else run_replay(options)


if __name__ == "__main__":
    sys.exit(main())
