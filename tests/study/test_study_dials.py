"""Every dial works from study.yaml: its pools are made, its settings reach the prompts, wrong ones are refused."""

import json

import pytest

from cuvee.errors import ConfigError
from cuvee.generate.dials import PartsDial
from cuvee.study.generation import make_dials
from cuvee.study.opening import open_study, run_study

pytestmark = pytest.mark.trust(__name__)

ASPECTS = {"tone": ["dry", "angry"], "length": ["three words", "six words"]}
DIALS = {
    "topics": {"name": "topics", "levels": [1, 2], "topics": "data"},
    "tree": {
        "name": "topics",
        "levels": [1, 3],
        "topics": {y: {f"{y} one": ["x", "z"], "two": ["x", "z"]} for y in ("business", "politics", "sports")},
    },
    "list": {"name": "topics", "levels": [1, 2], "topics": ["home", "work"]},
    "attributes": {"name": "attributes", "levels": [1, 2], "dimensions": ASPECTS},
    "examples": {"name": "examples", "levels": [1, 3], "shown": 1},
    "taboo": {"name": "taboo", "levels": [1, 2], "words": 1, "read": 1},
    "base_then_refine": {"name": "base_then_refine", "levels": [0.5, 1.2]},
    "sampling": {"name": "sampling", "levels": [0.3, {"name": "wide", "temperature": [0.8, 1.4], "min_p": 0.1}]},
    "combined": {
        "name": "combined",
        "first": {"name": "attributes", "levels": [1, 2], "dimensions": ASPECTS},
        "second": {"name": "sampling", "levels": [0.3, 1.1]},
        "levels": ["1 x 0.3", "2 x 1.1"],
    },
    "own": {"name": "test_study_dials:PersonasDial", "levels": [1, 2], "personas": ["a nurse", "a pilot"]},
}


class PersonasDial(PartsDial):
    """A dial of the user's own, as the docs show it."""

    name = "personas"

    def __init__(self, *, levels, personas):
        super().__init__([str(k) for k in sorted(levels)], rows=max(levels))
        self.personas = personas

    def parts(self, level, _label):
        return [((who,), {"attributes": (("written by", who),)}) for who in self.personas[: int(level)]]


def generate(settings, folder, dial):
    with open_study({**settings, "dials": [dial]}, out=folder) as flow:
        return {level: pool.corpus for level, pool in flow.pools.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", DIALS)
def test_each_dial_makes_its_pools(settings, tmp_path, local, name):
    pools = generate(settings, tmp_path / "run", DIALS[name])
    assert len(pools) == 2
    sizes = {len(corpus) for corpus in pools.values()}
    assert sizes == {2 * 3 * 3}  # draws, labels, rows a label and draw
    asked = json.dumps(local.bodies)
    told = {"topics": "all about", "tree": "about business one: x:", "list": "about work:", "attributes": "tone"}
    told |= {"examples": '\\n2."', "taboo": "without the words", "base_then_refine": "Edited:"}
    told |= {"combined": "words", "own": "a pilot", "sampling": "min_p"}
    assert told[name] in asked
    beside = sorted(f.name for f in (tmp_path / "run" / "pools").glob("*.jsonl"))
    assert [f.split(".")[-2] for f in beside] == ["provenance", "quarantine"] * 2
    files = (tmp_path / "run" / "pools").glob("*.provenance.jsonl")
    known = {json.loads(line)["id"] for f in files for line in f.read_text(encoding="utf-8").splitlines()}
    assert known == {row for corpus in pools.values() for row in corpus.ids}
    again = generate(settings, tmp_path / "again", DIALS[name])
    assert [c.fingerprint for c in again.values()] == [c.fingerprint for c in pools.values()]


class CountsDial(PersonasDial):
    """Its settings are called like what other dials have looked up for them."""

    def __init__(self, *, levels, count, values, selection):
        super().__init__(levels=levels, personas=[f"{selection} {count} {value}" for value in values])


def test_settings_of_a_dial_of_your_own_may_have_any_name(settings, tmp_path):
    own = {"name": "test_study_dials:CountsDial", "levels": [1, 2], "count": 3, "values": ["x", "y"], "selection": "s"}
    with open_study({**settings, "dials": [own]}, out=tmp_path / "run") as flow:
        ((_, dial),) = make_dials(flow.study)
    assert dial.personas == ["s 3 x", "s 3 y"]


@pytest.mark.slow
def test_a_study_of_a_combined_dial_ends_with_advice(settings, tmp_path):
    found = run_study({**settings, "dials": [DIALS["combined"]]}, out=tmp_path / "run")
    assert found.advice.decision in ("use", "do-not-use", "underpowered")
    assert {level for level in found.pools} == {"attributes x sampling=1 x 0.3", "attributes x sampling=2 x 1.1"}


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ({"name": "taboos", "levels": [1]}, "did you mean 'taboo'"),
        ({"name": "attributes", "levels": [1]}, "dimensions"),
        ({"name": "attributes", "levels": [99], "dimensions": ASPECTS}, "dials.0.*99"),
        ({"name": "taboo", "levels": [1], "word": 2}, "did you mean 'words'"),
        ({"name": "test_study_dials:PersonasDial", "levels": [1], "person": []}, "person"),
        ({"name": "test_study_dials:Nobody", "levels": [1]}, "Nobody"),
        ({"name": "combined", "first": DIALS["attributes"], "second": DIALS["attributes"]}, "dials.0"),
    ],
    ids=lambda v: v.get("name", "") if isinstance(v, dict) else "",
)
def test_wrong_settings_are_refused_by_name_before_anything_is_asked(settings, tmp_path, local, dial, message):
    with pytest.raises(ConfigError, match=message):
        run_study({**settings, "dials": [dial]}, out=tmp_path / "run")
    assert not local.bodies
