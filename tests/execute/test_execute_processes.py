import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from executor_work import Meet, Misbehave, Rooted, Square, break_oddly, threads
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from cuvee.errors import ConfigError
from cuvee.execute import LocalExecutor, Lost, ProcessExecutor, Terms, open_executor
from cuvee.execute.workers import pack, unpack
from cuvee.inputs import usable_cores

TWO = Terms(workers=2)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{process}/stat").exists() or "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]


def until(found, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_every_item_comes_once_with_its_result_and_data_is_shared():
    work = Square(np.arange(50))
    with ProcessExecutor(TWO) as executor:
        found = list(executor.run_all(work, range(50)))
        more = list(executor.run_all(work, iter([3])))  # the same workers, the same data
    assert sorted(item for item, _ in found) == list(range(50))
    assert all(result[0] == item**2 and result[1] is False for item, result in found)
    workers = {result[2] for _, result in found}
    assert os.getpid() not in workers and len(workers) <= 2 and more[0][1][2] in workers
    assert not any(alive(worker) for worker in workers)


def test_no_item_starts_no_worker():
    with ProcessExecutor(TWO) as executor:
        assert list(executor.run_all(lambda x: x, [])) == []  # a lambda could not even be carried


@pytest.mark.slow  # with the others of its kind
def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with ProcessExecutor(TWO) as executor:
        finished = executor.run_all(Square(np.arange(20)), items())
        next(finished)
        assert len(taken) <= 6
        finished.close()


@pytest.mark.slow  # with the others of its kind
def test_who_is_too_slow_dies_is_retried_and_costs_the_others_nothing(tmp_path):
    log = tmp_path / "log"
    items = [("sleep", 60), ("die-once", 1), ("die", 2), *(("fine", n) for n in range(6))]
    with ProcessExecutor(Terms(workers=2, timeout_s=1.0, retries=1)) as executor:
        found = dict(executor.run_all(Misbehave(log), items))
    assert set(found) == set(items)
    slow, dead = found.pop(("sleep", 60)), found.pop(("die", 2))
    assert isinstance(slow, Lost) and slow.cause == "timeout" and "execute.timeout_s (1 s)" in slow.reason
    assert isinstance(dead, Lost) and dead.cause == "died"
    assert "died 2 times" in dead.reason and "SIGKILL" in dead.reason
    assert all(result == item for item, result in found.items())
    lines = [line.rsplit(" ", 1)[0] for line in log.read_text().splitlines()]
    assert {line: lines.count(line) for line in lines if lines.count(line) > 1} == {"die-once 1": 2, "die 2": 2}


@pytest.mark.slow  # with the others of its kind
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is not known here")
def test_who_takes_too_much_memory_is_ended_and_not_tried_again(tmp_path):
    log = tmp_path / "log"
    with ProcessExecutor(Terms(workers=1, memory_gb=0.4)) as executor:
        found = dict(executor.run_all(Misbehave(log), [("fill", 600), ("fine", 1)]))
    lost = found[("fill", 600)]
    assert isinstance(lost, Lost) and lost.cause == "memory" and "execute.memory_gb (0.4)" in lost.reason
    assert found[("fine", 1)] == ("fine", 1)
    assert log.read_text().count("fill") == 1


@pytest.mark.slow  # with the others of its kind
def test_what_work_raises_is_raised_here_and_workers_are_gone(tmp_path):
    log = tmp_path / "log"
    with ProcessExecutor(TWO) as executor, pytest.raises(ArithmeticError, match="number 7") as caught:
        list(executor.run_all(Misbehave(log), [("raise", 7), ("sleep", 60)]))
    assert "in a worker process" in caught.value.__notes__[0]
    assert not any(alive(int(line.split()[-1])) for line in log.read_text().splitlines())
    with (
        ProcessExecutor(TWO) as executor,
        pytest.raises(RuntimeError, match="Fragile, which cannot be sent back: 3 and"),
    ):
        list(executor.run_all(break_oddly, [3]))


def test_work_that_cannot_be_carried_or_read_is_told():
    with ProcessExecutor(TWO) as executor, pytest.raises(ValueError, match="cannot be carried"):
        list(executor.run_all(partial(max, Rooted()), [1]))


def test_too_few_gpus_are_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with ProcessExecutor(Terms(gpus=1)) as executor, pytest.raises(ConfigError, match=r"1 cpus and 1 gpus fits"):
        list(executor.run_all(threads, [1]))
    with ProcessExecutor(Terms(workers=2, gpus=1)) as executor, pytest.raises(ConfigError, match=r"1 gpus fits"):
        list(executor.run_all(threads, [1]))


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(("named", "gpus", "dealt"), [
    ("3,5,7", 1, {"3", "5", "7"}),  # 3 workers, a GPU each
    ("3,5,7,8,9", 2, {"3,5", "7,8"}),
])  # fmt: skip
def test_workers_are_dealt_over_the_gpus_that_are_visible(named, gpus, dealt, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    held = len(named.split(",")) // gpus
    with ProcessExecutor(Terms(workers=9, gpus=gpus)) as executor:
        results = [result for _, result in executor.run_all(Meet(tmp_path), [(n, held) for n in range(held + 2)])]
    worker_of = {pid: device for device, pid, _, _ in results}
    assert set(worker_of.values()) == dealt and len(worker_of) == held
    assert most_at_once(results) == held


def most_at_once(results) -> int:
    return max(sum(begun <= at < ended for _, _, begun, ended in results) for _, _, at, _ in results)


@pytest.mark.slow  # with the others of its kind
def test_threads_are_those_of_the_terms(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threadpool_limits(2):
        with ProcessExecutor(Terms(workers=1, cpus=1)) as executor:
            ((_, found),) = executor.run_all(threads, [1])
        assert not isinstance(found, Lost) and set(found) <= {1}
        with open_executor("local", Terms(cpus=1)) as here:
            ((_, limited),) = here.run_all(threads, [1])
        assert set(limited) == {1}
        if usable_cores() > 1:
            assert max(threads(1)) > 1
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_local_executor_takes_items_one_by_one():
    heard: list[str] = []

    def items():
        for number in (3, 1):
            heard.append(f"take {number}")
            yield number

    for item, result in LocalExecutor().run_all(lambda x: x * x, items()):
        heard.append(f"{item}: {result}")
    assert heard == ["take 3", "3: 9", "take 1", "1: 1"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="valid: local, processes, ray"):
        open_executor("threads")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.lists(st.integers(0, 70), max_size=4),
)
@pytest.mark.slow
def test_what_is_packed_comes_back(tmp_path_factory, plain, sizes):
    path = tmp_path_factory.mktemp("packed") / "value"
    arrays = [np.arange(size, dtype=np.float64) for size in sizes]
    pack((plain, arrays), path)
    back, views = unpack(path)
    assert back == plain and len(views) == len(arrays)
    assert all(np.array_equal(a, b) and not b.flags.writeable for a, b in zip(arrays, views, strict=True) if a.size)


PARENT = """
import sys
from executor_work import Misbehave
from cuvee.execute import ProcessExecutor, Terms
from pathlib import Path
try:
    with ProcessExecutor(Terms(workers=2)) as executor:
        list(executor.run_all(Misbehave(Path(sys.argv[1])), [("child", 1), ("sleep", 600)]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(log)], env=environment, stderr=subprocess.DEVNULL)
    until(lambda: log.exists() and log.read_text().count("\n") == 2)
    workers = [int(line.split()[-1]) for line in log.read_text().splitlines()]
    parent.send_signal(how)
    code = parent.wait(timeout=60)  # what the workers do takes ten minutes
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not any(alive(worker) for worker in workers))
    until(lambda: not list(tmp_path.glob("cuvee-workers-*")))
    until(lambda: "sleep 600" not in subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout)
