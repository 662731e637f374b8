"""The training loop, on a linear model with dropout: no transformer is needed to hold it to its word."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.probe import Phase
from cuvee.train.settings import TrainSettings

torch = pytest.importorskip("torch")

from cuvee.train.finetuning import ParameterGroup, draw_batches, phase_starts  # noqa: E402
from cuvee.train.loop import CHECKPOINT_FILE, train_loop  # noqa: E402 - they need torch

pytestmark = pytest.mark.slow  # each is quick, together they are not

ROWS, WIDTH = 12, 5
SYNTHETIC = np.arange(ROWS) % 3 > 0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tiny model gains nothing from a second thread, and waits for it when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Loss:
    """Cross-entropy of weighted rows, or with ``power`` the generalised one; keeps what it is told."""

    weights: np.ndarray = field(default_factory=lambda: np.ones(ROWS))
    phases: tuple = (Phase(rows=np.arange(ROWS), share=1.0),)
    power: float = 0.0
    normalise: bool = False
    seen: list = field(default_factory=list)

    def slopes(self, rows, log_p):
        self.seen.append((rows, log_p))
        found = -np.exp(self.power * log_p) * self.weights[rows] / self.weights.mean()
        return found / np.abs(found).mean() if self.normalise else found

    def values(self, rows, log_p):
        return -log_p * self.weights[rows] / self.weights.mean()


class Model:
    """Logistic regression on dropped-out numbers; ``break_at`` is a step at whose batch it fails."""

    def __init__(self, *, dropout=0.0, seed=0, rate=0.05, held_out=6, clipped=False):
        rng = np.random.default_rng(seed)
        self.device = torch.device("cpu")
        self.inputs = torch.tensor(rng.normal(size=(ROWS + held_out, WIDTH)), dtype=torch.float32)
        self.truth = torch.tensor(rng.integers(0, 3, size=ROWS + held_out))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.module = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(WIDTH, 3))
        self.groups = (ParameterGroup(tuple(self.module.parameters()), rate, clipped=clipped),)
        self.held_out = held_out
        self.passes = 0

    def log_p(self, rows):
        self.passes += 1
        at = np.asarray(rows)
        return -torch.nn.functional.cross_entropy(self.module(self.inputs[at]), self.truth[at], reduction="none")

    @property
    def numbers(self):
        return torch.cat([p.detach().ravel() for p in self.module.parameters()]).numpy().copy()

    @property
    def gradient(self):
        return torch.cat([p.grad.ravel() for p in self.module.parameters()]).numpy().copy()


def plan(**changes):
    return TrainSettings(**{"steps": 8, "batch_size": 4, "seed": 1} | changes)


def trained(model=None, loss=None, schedule=None, validate=None, **more):
    model = model or Model(dropout=0.3)
    model.validate = validate
    result = train_loop(model, loss or Loss(), schedule or plan(), **more)
    return model, result


# --- batches ---
def one_phase(n):
    return (Phase(rows=np.arange(n), share=1.0),)


def test_batches_are_passes_over_the_rows_and_may_straddle_two():
    batches = draw_batches(one_phase(10), plan(steps=5))
    assert batches.shape == (5, 4)
    flat = batches.ravel()
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert not np.array_equal(flat[:10], flat[10:])
    assert draw_batches(one_phase(3), plan(steps=5)).shape == (5, 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_phases_share_the_steps_and_keep_to_their_rows(steps, size, seed, parts):
    phases = [Phase(rows=np.arange(100 * i, 100 * i + part), share=part / sum(parts)) for i, part in enumerate(parts)]
    schedule = plan(steps=steps, batch_size=size, seed=seed)
    batches = draw_batches(phases, schedule)
    assert batches.shape == (steps, size)
    starts = [*phase_starts(phases, steps), steps]
    assert starts[0] == 0 and starts == sorted(starts)
    for i, phase in enumerate(phases):
        found = batches[starts[i] : starts[i + 1]]
        assert abs(len(found) - phase.share * steps) <= 1
        assert np.isin(found, phase.rows).all()
        counts = np.bincount(found.ravel() - 100 * i, minlength=len(phase.rows))
        assert counts.max() - counts.min() <= 1


def test_a_phase_without_rows_is_a_training_error():
    none = Phase(rows=np.arange(0), share=0.5)
    with pytest.raises(TrainingError, match="phase 2 of the training has no rows"):
        draw_batches([Phase(rows=np.arange(3), share=0.5), none], plan())


def test_the_first_phase_has_the_batches_of_a_training_without_phases():
    half = Phase(rows=np.arange(10), share=0.5)
    two = draw_batches([half, half], plan(steps=6))
    assert np.array_equal(two[:3], draw_batches(one_phase(10), plan(steps=6))[:3])
    assert not np.array_equal(two[:3], two[3:])


# --- steps ---
def test_it_takes_exactly_the_steps_and_says_so():
    events = []
    model, result = trained(progress=lambda *event: events.append(event))
    assert [event[:2] for event in events] == [(i, 8) for i in range(1, 9)]
    assert (result.step, result.best_step) == (8, 8)
    assert [event[2] for event in events] == list(result.losses)
    assert not model.module.training
    assert trained(schedule=plan(steps=40), model=Model())[1].losses[-1] < result.losses[0]


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_slopes_give_the_gradient_of_the_loss(power):
    loss, model = Loss(power=power, weights=np.linspace(1, 2, ROWS)), Model()
    start = model.numbers
    trained(model, loss, plan(steps=1, batch_size=ROWS))
    found = model.gradient
    twin = Model()
    assert np.array_equal(twin.numbers, start)
    log_p = twin.log_p(np.arange(ROWS))
    relative = torch.tensor(loss.weights / loss.weights.mean())
    values = -log_p if power == 0 else (1 - (power * log_p).exp()) / power
    (relative * values).mean().backward()
    assert np.allclose(found, twin.gradient, rtol=1e-5, atol=1e-7)


def test_a_weight_of_two_is_a_row_that_stands_twice():
    weights = np.ones(ROWS)
    weights[:3] = 2
    weighted, repeated = Model(), Model()
    trained(weighted, Loss(weights=weights), plan(steps=1, batch_size=ROWS))
    twice = Phase(rows=np.array([0, 0, 1, 1, 2, 2, *range(3, ROWS)]), share=1.0)
    trained(repeated, Loss(phases=(twice,)), plan(steps=1, batch_size=ROWS + 3))
    assert np.allclose(weighted.gradient, repeated.gradient, rtol=1e-5, atol=1e-7)


def test_only_clipped_groups_are_clipped():
    wild = Loss(weights=np.full(ROWS, 1.0))
    wild.slopes = lambda rows, log_p: -1000.0 * np.ones(len(log_p))  # noqa: ARG005
    norms = []
    for clipped in (True, False):
        model = Model(clipped=clipped)
        trained(model, wild, plan(steps=1))
        norms.append(np.linalg.norm(model.gradient))
    assert norms[0] == pytest.approx(1.0, rel=1e-3)
    assert norms[1] > 10


def test_rates_rise_and_fall_and_groups_have_their_own():
    def path(rate):
        model, moves = Model(rate=rate), []
        before = [model.numbers]

        def note(*_):
            moves.append(np.abs(model.numbers - before[-1]).max())
            before.append(model.numbers)

        trained(model, Loss(), plan(steps=40, batch_size=ROWS), progress=note)
        return np.array(moves)

    moves = path(0.01)
    assert moves[0] < moves[3]
    assert moves[-1] < 0.1 * moves.max()
    assert path(0.001).max() == pytest.approx(0.1 * moves.max(), rel=0.2)


def test_pieces_change_nothing_even_where_rows_depend_on_each_other():
    for loss in (Loss, lambda: Loss(power=0.7, normalise=True)):
        whole, pieces, more = (trained(Model(), loss(), plan(accumulate=n))[0].numbers for n in (1, 3, 9))
        assert np.allclose(whole, pieces, atol=1e-5)
        assert np.allclose(whole, more, atol=1e-5)
    one, three = Model(), Model()
    trained(one, Loss(), plan())
    trained(three, Loss(), plan(accumulate=3))
    assert (one.passes, three.passes) == (8, 48)


def test_pieces_are_computed_twice_with_the_same_dropout():
    class Recording(Model):
        def log_p(self, rows):
            found = super().log_p(rows)
            self.found.append(found.detach().numpy())
            return found

    model = Recording(dropout=0.5)
    model.found = []
    trained(model, Loss(), plan(steps=1, accumulate=2))
    first, second = np.concatenate(model.found[:2]), np.concatenate(model.found[2:])
    assert np.array_equal(first, second)
    assert not np.array_equal(model.found[0], model.found[1])


# --- phases ---
def two_phases(pull):
    real, synthetic = np.flatnonzero(~SYNTHETIC), np.flatnonzero(SYNTHETIC)
    return (Phase(rows=synthetic, share=0.5), Phase(rows=real, share=0.5, pull=pull))


def test_a_pull_holds_the_model_to_where_the_phase_began():
    halfway = {}

    def note(model):
        return lambda step, *_: halfway.setdefault(id(model), model.numbers) if step == 10 else None

    moved = []
    for pull in (0.0, 0.5, 50.0):
        model = Model()
        trained(model, Loss(phases=two_phases(pull)), plan(steps=20), progress=note(model))
        moved.append(np.linalg.norm(model.numbers - halfway[id(model)]))
    assert moved[0] > moved[1] > moved[2]
    free, none = (trained(loss=Loss(phases=two_phases(p)))[0].numbers for p in (0.0, 1e-12))
    assert np.allclose(free, none, atol=1e-5)


def test_the_pull_is_the_gradient_of_its_term():
    """At the second step of a phase of one batch again and again: gradient = loss's + pull x (theta - start)."""
    everything = np.arange(ROWS)
    pulled, free = Model(), Model()
    start = pulled.numbers
    after = []
    trained(
        pulled, Loss(phases=(Phase(rows=everything, share=1.0, pull=3.0),)), plan(steps=2, batch_size=ROWS),
        progress=lambda *_: after.append(pulled.numbers),
    )  # fmt: skip
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(torch.tensor(after[0]), free.module.parameters())
    (-free.log_p(everything)).mean().backward()
    assert np.allclose(pulled.gradient, free.gradient + 3.0 * (after[0] - start), atol=1e-6)


# --- early stopping ---
def scores(*values):
    left = list(values)
    return lambda: left.pop(0)


def test_patience_ends_training_and_goes_back_to_the_best():
    at = {0: None}
    model = Model(dropout=0.3)
    _, result = trained(
        model, schedule=plan(steps=20, patience=2, evaluate_every=2), validate=scores(1.0, 3.0, 2.0, 3.0),
        progress=lambda step, *_: at.update({step: model.numbers}),
    )  # fmt: skip
    assert (result.step, result.best_step) == (8, 4)
    assert np.array_equal(model.numbers, at[4])
    assert not model.module.training
    assert len(result.losses) == 8


def test_evaluations_are_a_tenth_of_the_steps_apart_and_change_no_step():
    calls = []
    model, result = trained(schedule=plan(steps=30, patience=99), validate=lambda: calls.append(1) or len(calls))
    assert len(calls) == 10
    assert result.best_step == 30
    assert np.array_equal(model.numbers, trained(schedule=plan(steps=30))[0].numbers)
    assert trained(schedule=plan(steps=30, patience=99), validate=lambda: 0.0)[1].step == 30
    unused = []
    trained(validate=lambda: unused.append(1) or 0.0)
    assert unused == []
    with pytest.raises(ConfigError, match="patience is 1, but there are no validation rows"):
        trained(Model(held_out=0), schedule=plan(patience=1))


# --- checkpoints ---
class Killed(BaseException):
    pass


def kill_at(number):
    def progress(step, *_):
        if step == number:
            raise Killed

    return progress


def everything(**changes):
    """A training that uses all that a checkpoint has to hold."""
    loss = Loss(phases=two_phases(0.7), power=0.3)
    schedule = plan(steps=12, **{"checkpoint_every": 2, "patience": 9, "evaluate_every": 3} | changes)
    model = Model(dropout=0.3)
    model.validate = lambda: -float(np.abs(model.numbers).sum())
    return model, loss, schedule


def run(folder=None, progress=None, key="", **changes):
    model, loss, schedule = everything(**changes)
    result = train_loop(model, loss, schedule, key=key, folder=folder, progress=progress)
    return model.numbers, result


@pytest.mark.parametrize("kill", [1, 2, 5, 7, 11, 12])
def test_killed_and_taken_up_it_ends_with_the_same_bits(tmp_path, kill):
    numbers, result = run()
    with pytest.raises(Killed):
        run(tmp_path, kill_at(kill))
    steps = []
    again = run(tmp_path, lambda step, *_: steps.append(step))
    assert steps[0] == (kill - 1) // 2 * 2 + 1  # the step that was killed had written nothing yet
    assert np.array_equal(numbers, again[0])
    assert again[1] == result
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_checkpoints_change_nothing_and_come_ten_times_by_default(tmp_path):
    numbers = run(checkpoint_every=None)[0]
    assert np.array_equal(run(tmp_path / "new")[0], numbers)
    assert (tmp_path / "new" / CHECKPOINT_FILE).is_file()
    with pytest.raises(Killed):
        run(tmp_path, kill_at(4), checkpoint_every=None)
    steps = []
    again = run(tmp_path, lambda step, *_: steps.append(step), checkpoint_every=None)
    assert steps[0] == 4  # 12 steps: a checkpoint at each
    assert np.array_equal(again[0], numbers)


def test_a_finished_training_is_not_done_again(tmp_path):
    numbers, result = run(tmp_path)
    steps = []
    again = run(tmp_path, lambda step, *_: steps.append(step))
    assert steps == []
    assert np.array_equal(numbers, again[0])
    assert again[1] == result


@pytest.mark.parametrize("change", [{"seed": 2}, {"batch_size": 3}, {"key": "other rows"}, {"patience": 8}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change):
    run(tmp_path)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: of a training on other rows or settings; delete it"):
        run(tmp_path, **change)


def test_a_broken_checkpoint_and_a_full_disk_get_one_line(tmp_path):
    run(tmp_path)
    older = torch.load(tmp_path / CHECKPOINT_FILE)
    older["state"]["pace"] = 3  # of another version
    torch.save(older, tmp_path / "older")
    whole = (tmp_path / CHECKPOINT_FILE).read_bytes()
    for broken in (b"", b"broken", whole[:-200], (tmp_path / "older").read_bytes()):
        (tmp_path / CHECKPOINT_FILE).write_bytes(broken)
        with pytest.raises(
            InputError, match=r"checkpoint\.pt cannot be loaded \(.*\); delete it to train from the start"
        ):
            run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="the checkpoint cannot be written"):
        run(tmp_path / "file")


# --- seeds and faults ---
def test_equal_seeds_equal_bits_whatever_the_global_random_state():
    before = torch.get_rng_state()
    one = trained()[0].numbers
    assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng([]):
        torch.manual_seed(9)
        assert np.array_equal(one, trained()[0].numbers)
    assert not np.array_equal(one, trained(schedule=plan(seed=2))[0].numbers)


def test_bfloat16_is_near_float32_and_a_cpu_has_float32_by_default():
    auto, full, half = (
        trained(Model(), schedule=plan(precision=p))[0].numbers for p in ("auto", "float32", "bfloat16")
    )
    assert np.array_equal(auto, full)
    assert not np.array_equal(full, half)
    assert np.allclose(full, half, atol=0.05)
    losses = trained(Model(), schedule=plan(precision="bfloat16", steps=60, batch_size=ROWS))[1].losses
    assert losses[-1] < 0.8 * losses[0]


class Faulty(Model):
    def __init__(self, fault, **more):
        super().__init__(**more)
        self.fault = fault

    def log_p(self, rows):
        found = super().log_p(rows)
        if self.passes == 3:
            return self.fault(found)
        return found


def test_a_loss_that_is_not_finite_is_a_training_error():
    before = torch.get_rng_state()
    for fault in (lambda p: p * float("nan"), lambda p: p - float("inf")):
        with pytest.raises(
            TrainingError, match=r"the loss is (nan|inf) at step 3 of 8; lower learning_rate \(now 0.05"
        ):
            trained(Faulty(fault))
    broken = Loss()
    broken.slopes = lambda rows, log_p: np.full(len(rows), np.nan)  # noqa: ARG005
    with pytest.raises(TrainingError, match="at step 1 of 8; lower learning_rate"):
        trained(loss=broken)
    assert torch.equal(before, torch.get_rng_state())


def test_running_out_of_memory_is_a_training_error():
    def fill(found):
        torch.empty(2**50, dtype=torch.float64)
        return found

    def misshape(found):
        return found @ torch.zeros(99)

    with pytest.raises(TrainingError, match=r"out of memory on cpu; lower batch_size \(now 4\) .*raise accumulate"):
        trained(Faulty(fill))
    with pytest.raises(RuntimeError, match="size"):
        trained(Faulty(misshape))
