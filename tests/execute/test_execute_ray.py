"""Ray on this machine: the same protocol, the same answers to what goes wrong."""

from collections import Counter

import numpy as np
import pytest
from executor_work import Meet, Misbehave, Square

from cuvee.errors import ConfigError
from cuvee.execute import Lost, Terms, open_executor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def connected():
    """One small cluster with two GPUs by name, for all tests of this file; connected as a user's own session."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local", num_cpus=4, num_gpus=2, include_dashboard=False, configure_logging=False,
        logging_level="CRITICAL", log_to_driver=False,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def test_items_come_once_and_actors_stay(connected):
    work = Square(np.arange(50))
    with open_executor("ray", Terms(workers=2)) as executor:
        found = dict(executor.run_all(work, range(50)))
        more = dict(executor.run_all(work, iter([3])))
    assert sorted(found) == list(range(50))
    assert all(result[:2] == (item**2, False) for item, result in found.items())
    assert more[3][2] in {result[2] for result in found.values()}  # the same actors
    assert connected.is_initialized()  # it was not ours to end


def test_deaths_deadlines_and_errors(connected, tmp_path):
    log = tmp_path / "log"
    items = [("die-once", 1), ("die", 2), ("fine", 1), ("fine", 2), ("fine", 3)]
    with open_executor("ray", Terms(workers=2, retries=1)) as executor:
        outcomes = dict(executor.run_all(Misbehave(log), items))
    dead = outcomes.pop(("die", 2))
    assert isinstance(dead, Lost) and dead.cause == "died" and "died 2 times" in dead.reason
    assert all(result == item for item, result in outcomes.items())
    with open_executor("ray", Terms(workers=1, timeout_s=1.0)) as executor:
        outcomes = dict(executor.run_all(Misbehave(log), [("sleep", 60), ("fine", 4)]))
    slow = outcomes[("sleep", 60)]
    assert isinstance(slow, Lost) and slow.cause == "timeout" and outcomes[("fine", 4)] == ("fine", 4)
    with open_executor("ray", Terms(workers=1)) as executor, pytest.raises(ArithmeticError, match="number 7"):
        list(executor.run_all(Misbehave(log), [("raise", 7)]))
    assert connected.is_initialized()


def test_workers_are_as_many_as_the_cluster_holds_and_none_is_told(connected, tmp_path):
    with open_executor("ray", Terms(cpus=2)) as executor:
        found = dict(executor.run_all(Misbehave(tmp_path / "log"), [("sleep", 1), ("sleep", 2), ("fine", 3)]))
    assert len(found) == 3
    assert len({line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()}) == 2
    assert connected.nodes()


def test_a_gpu_is_given_to_one_trial_at_a_time(connected, tmp_path):
    with open_executor("ray", Terms(gpus=1)) as executor:
        results = [result for _, result in executor.run_all(Meet(tmp_path), [(n, 2) for n in range(4)])]
    device_of = {pid: device for device, pid, _, _ in results}
    assert connected.cluster_resources()["GPU"] == 2
    assert Counter(device_of.values()) == {"0": 1, "1": 1}
    assert max(sum(begun <= at < ended for _, _, begun, ended in results) for _, _, at, _ in results) == 2


def test_more_gpus_than_the_cluster_has_are_refused_in_one_line(connected, monkeypatch):
    work = Square(np.arange(3))
    with open_executor("ray", Terms(gpus=3)) as executor, pytest.raises(ConfigError, match="3 gpus fits anywhere"):
        list(executor.run_all(work, [1]))
    monkeypatch.setattr("cuvee.execute.ray._GROWS_S", 1.0)  # a cluster of others may grow, where workers are asked for
    with open_executor("ray", Terms(workers=1, gpus=3)) as executor, pytest.raises(ConfigError) as refused:
        list(executor.run_all(work, [1]))
    assert "3 gpus fits anywhere, and no node came within 1 s" in str(refused.value)
    assert "\n" not in str(refused.value) and connected.nodes()


def test_an_address_without_a_cluster_is_told():
    ray = pytest.importorskip("ray")
    ray.shutdown()
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at execute\.address '127\.0\.0\.1:1'"):
        open_executor("ray", address="127.0.0.1:1")
