"""Lists that are asked for once and kept, and pools at a requested, measured diversity."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from cuvee.config.dials import TargetConfig
from cuvee.config.reading import make_config
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, RunFolderError
from cuvee.execute import Silent, StageCounter, Stages
from cuvee.generate.client import OpenedLLM
from cuvee.measure import measure_corpus
from cuvee.records import Estimate
from cuvee.study.generation import ASKED, DialPart, KeptLists, make_dials, make_score, wanted_levels
from cuvee.study.opening import open_study
from local_llm import WORDS

pytestmark = pytest.mark.trust(__name__)


@contextmanager
def opened(settings, folder, *dials):
    """A prepared study with these dials, whatever they have to ask for."""
    with open_study({**settings, "dials": [{"name": "sampling"}]}, out=folder) as flow:
        yield replace(flow.study, config=make_config({**settings, "dials": list(dials)}))


class Endpoints:
    """Opens the server as the study's endpoint, and counts how often."""

    def __init__(self, local) -> None:
        self.local, self.opened = local, 0

    @contextmanager
    def __call__(self, _study):
        self.opened += 1
        yield OpenedLLM(endpoint=self.local.endpoint(concurrency=4))


def numbered(body) -> str:
    return "\n".join(f"{i}. item {body['seed'] % 1000} {WORDS[i]}" for i in range(1, 9))


FLAT = {"name": "topics", "levels": [1, 3], "topics": "llm"}
ASPECTS = {"name": "attributes", "levels": [1, 4], "dimensions": "llm", "count": 2, "values": 2}
BOTH = {"name": "combined", "first": FLAT, "second": ASPECTS, "levels": ["1 x 1", "3 x 4"]}


@pytest.mark.parametrize("dial", [FLAT, ASPECTS, BOTH], ids=["topics", "attributes", "combined"])
def test_lists_are_asked_for_once_and_kept_where_the_user_sees_them(settings, tmp_path, local, dial):
    local.text = numbered
    endpoints = Endpoints(local)
    with opened(settings, tmp_path / "run", dial) as study:
        ((_, first),) = make_dials(study, KeptLists(study, endpoints))
        sent, times = len(local.bodies), endpoints.opened
        assert sent and times
        ((_, again),) = make_dials(study, KeptLists(study, endpoints))
        assert (len(local.bodies), endpoints.opened) == (sent, times)
        asked = (first.levels[-1].name, study.train.labels, 0, 4)
        assert first.slots(*asked) == again.slots(*asked)
        kept = json.loads((tmp_path / "run" / ASKED).read_text(encoding="utf-8"))
        assert {entry["asked"] for entry in kept.values()} <= {"topics", "attributes"}
        (tmp_path / "run" / ASKED).unlink()
        make_dials(study, KeptLists(study, endpoints))
        assert len(local.bodies) == sent  # the ledger has the answers
        assert json.loads((tmp_path / "run" / ASKED).read_text(encoding="utf-8")) == kept


@pytest.mark.slow
def test_a_larger_level_keeps_the_topics_of_the_smaller_ones(settings, tmp_path, local):
    local.text = numbered
    found = {}
    for largest in (3, 10):
        dial = {**FLAT, "levels": [1, largest]}
        with opened(settings, tmp_path / "run", dial) as study:
            found[largest] = KeptLists(study, Endpoints(local)).find(
                "topics", {"business": study.train.texts}, count=largest
            )
    assert list(found[10]["business"])[:3] == list(found[3]["business"])
    asked = [json.dumps(body, sort_keys=True) for body in local.bodies]
    assert len(set(asked)) == len(asked) == 2


@pytest.mark.slow
def test_what_lists_depend_on_has_them_asked_again(settings, tmp_path, local):
    local.text = numbered
    local.models = ["tiny", "other"]
    texts = {"business": ["a text"]}
    changes = [
        {}, {"describe": "tweets"}, {"generator": {**settings["generator"], "model": "other"}},
        {"generator": {**settings["generator"], "temperature": 1.5, "concurrency": 2}},
    ]  # fmt: skip
    times = []
    for change in changes:
        endpoints = Endpoints(local)
        with opened({**settings, **change}, tmp_path / "run", FLAT) as study:
            KeptLists(study, endpoints).find("topics", texts, count=3)
        times.append(endpoints.opened)
    assert times == [1, 1, 1, 0]  # how rows are drawn, and how fast, is no matter


def test_without_an_asker_lists_have_the_right_shape(settings, tmp_path, local):
    for dial in (FLAT, ASPECTS, BOTH):
        with opened(settings, tmp_path / "run", dial) as study:
            ((_, made),) = make_dials(study)
            made.check(study.train.labels, 9)
    assert not local.bodies


def test_a_dial_that_is_listed_twice_is_refused(settings, tmp_path):
    with opened(settings, tmp_path / "run", {"name": "sampling"}, {"name": "sampling", "levels": [3]}) as study:
        with pytest.raises(ConfigError, match="dial 'sampling' is listed twice; put all its levels into one entry"):
            make_dials(study)


def test_a_broken_file_of_lists_is_told(settings, tmp_path, local):
    with opened(settings, tmp_path / "run", FLAT) as study:
        for content in ("{", "[1]", '{"a": {"found": 3}}'):
            (tmp_path / "run" / ASKED).write_text(content)
            with pytest.raises(RunFolderError, match="delete it"):
                make_dials(study, KeptLists(study, Endpoints(local)))


# --- targets ----------------------------------------------------------------------------------
TOPICS = ["tea", "sea", "law", "oil", "war", "art", "tax", "gym"]
LADDER = {"name": "topics", "levels": [1, 2, 4, 8], "topics": TOPICS}


def about(body) -> str:
    """Two words of the topic that was asked for, and one of its own."""
    found = body["prompt"].rsplit("all about ", 1)[1].partition(":")[0]
    return f"{found} {found}ish word{body['seed']}"


def count_topics(subject) -> Estimate:
    """A metric that knows how many topics there are."""
    return Estimate(value=float(len({text.split()[0] for text in subject.corpus.texts})), n=subject.n)


class Noting(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def reach(many, run, target) -> dict:
    """Search for a target as a study does: what it keeps of it."""
    with opened(many, run, {**LADDER, "target": target}) as study:
        heard = Noting()
        ((settings, dial),) = make_dials(replace(study, stages=Stages(heard)))
        study = replace(study, stages=Stages(heard))
        part = DialPart(settings=settings, dial=dial, levels=dial.levels, blocks=range(2))
        (level,) = wanted_levels(study, part, StageCounter(Silent(), "search"))
        kept = json.loads((run / "targets.json").read_text(encoding="utf-8"))["topics"]
        assert kept["level"] == level.name
        return {**kept, "notes": heard.notes}


@pytest.fixture
def many(settings):
    return {**settings, "split": {"test": 30, "validation": 30, "rows_per_label": 8}}


@pytest.mark.slow
def test_asked_for_diversities_come_out_in_order_and_cost_nothing_twice(many, tmp_path, local):
    local.text = about
    low, high = (reach(many, tmp_path / "run", {"metric": "vendi", "value": v, "tolerance": 0}) for v in (0, 1000))
    assert [low["level"], high["level"]] == ["1", "8"]
    levels = []
    for share in (0.0, 0.4, 0.7, 1.0):
        value = low["score"] + share * (high["score"] - low["score"])
        levels.append(int(reach(many, tmp_path / "run", {"metric": "vendi", "value": value, "tolerance": 0})["level"]))
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] == 8 and len(set(levels)) > 2
    # nested: levels share the rows of their topics, so a new level sends only what is missing
    assert len(local.bodies) == len({json.dumps(body, sort_keys=True) for body in local.bodies})
    before = len(local.bodies)
    reach(many, tmp_path / "run", {"metric": "vendi", "value": 1000, "tolerance": 0})
    assert len(local.bodies) == before


@pytest.mark.slow
def test_an_unreachable_target_says_so_and_a_level_found_is_remembered(many, tmp_path, local):
    local.text = about
    metric = "test_study_targets:COUNT"
    far = reach(many, tmp_path / "run", {"metric": metric, "value": 50})
    assert (far["reached"], far["level"], far["score"]) == (False, "8", 8)
    assert "out of reach: best seen 8 at level 8" in far["notes"][-1]
    near = reach(many, tmp_path / "run", {"metric": metric, "value": 4})
    assert (near["reached"], near["level"], near["score"]) == (True, "4", 4)
    assert [tried["level"] for tried in near["tried"]] == ["1", "8", "2", "4"]
    assert [tried["score"] for tried in near["tried"]] == [1, 8, 2, 4]
    assert near["notes"] and not reach(many, tmp_path / "run", {"metric": metric, "value": 4})["notes"]
    (tmp_path / "run" / "targets.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"targets.json: damaged .*delete it: the search is made again"):
        reach(many, tmp_path / "run", {"metric": metric, "value": 4})


def test_a_budget_of_rows_below_the_first_level_is_refused_before_anything_is_asked(many, tmp_path, local):
    for target, said in (
        ({"metric": "vendi", "value": 3, "rows": 5}, r"dials.0: target.rows is 5; level topics=1 alone needs 48 rows"),
        ({"metric": "test_study_targets:NOTHING", "value": 3}, "dials.0: metric 'test_study_targets:NOTHING' cannot"),
    ):
        with opened(many, tmp_path / "run", {**LADDER, "target": target}) as study:
            with pytest.raises(ConfigError, match=said):
                make_dials(study)
    assert not local.bodies


@pytest.mark.slow
def test_rows_end_the_search(many, tmp_path, local):
    local.text = about
    found = reach(many, tmp_path / "run", {"metric": "test_study_targets:COUNT", "value": 4, "rows": 50})
    assert not found["reached"] and "the budget of 50 rows" in found["note"] and found["level"] == "1"


def test_scores_are_the_numbers_of_measure_at_equal_rows(settings, tmp_path):
    rows = [{"text": f"{a} {b}", "target": "x"} for a in WORDS[:5] for b in WORDS[5:9]]
    corpus = Corpus.from_rows(rows)
    with opened(settings, tmp_path / "run", {"name": "sampling"}) as study:
        for name in ("vendi_q1", "dcscore_tau0.1", "distinct_1", "mean_words"):
            score = make_score(name, rows=15, encoder=study.encoder, against=study.train, seed=2)
            measured = measure_corpus(
                corpus, metrics=[name], encoder=study.encoder, against=study.train, rows=15, seed=2
            )
            assert score(corpus) == measured.values[name].value
            assert math.isnan(score(corpus.take(np.arange(14))))
    assert math.isnan(make_score("mean_pairwise_cosine", rows=1, encoder=study.encoder)(corpus.take([0])))
    target = TargetConfig(metric="vendi", value=20).target()
    assert (target.metric_name, target.value, target.tolerance) == ("vendi_q1", 20, 1)


def _metric():
    from cuvee.measure import Metric

    return Metric(
        name="topics", family="lexical", description="", better="higher is more diverse", needs=("texts",),
        compute=count_topics,
    )  # fmt: skip


COUNT = _metric()
