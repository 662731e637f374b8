"""What a study writes about: the named column, nothing held out, and no more than it needs."""

import json
import math
from dataclasses import replace

import pytest
from test_study_tasks import QUERIES, QUESTIONS, make, write_pair

from command_line import call, refused
from cuvee.defects import LeakFinder
from cuvee.errors import InputError
from cuvee.study.generation import guard_leaks
from cuvee.study.opening import open_study
from cuvee.study.prepare import LEFT_OUT, read_sources


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def passages(n):
    return [f"New passage {i} of rain and of the number {i}." for i in range(n)]


# --- the column -----------------------------------------------------------------------------------
def test_the_column_is_named_or_of_a_usual_name_and_what_there_is_is_told(tmp_path):
    rows = [{"id": i, "question": f"q{i % 3}", "passage": f"p{i // 2}", "other": f"o{i}"} for i in range(6)]
    path = write(tmp_path / "s.jsonl", rows)
    assert read_sources(path) == ["p0", "p1", "p2"]
    assert read_sources(path, "question") == ["q0", "q1", "q2"]
    with pytest.raises(InputError, match=r"no column 'pasage' \(--sources-column\); it has id, question, passage, ot"):
        read_sources(path, "pasage", option="--sources-column")
    both = write(tmp_path / "b.jsonl", [{"text": "a", "context": "b"}])
    with pytest.raises(InputError, match=r"which column holds .*\? It has text, context; name one with writing\.sour"):
        read_sources(both)
    assert read_sources(both, "context") == ["b"]
    assert read_sources(write(tmp_path / "c.jsonl", [{"anything": "x"}])) == ["x"]
    assert read_sources(write(tmp_path / "e.jsonl", [{"text": "x", "context": None}])) == ["x"]
    with pytest.raises(InputError, match=r"d.jsonl, row 2: column 'text' is empty"):
        read_sources(write(tmp_path / "d.jsonl", [{"text": "x"}, {"text": " "}]))


def test_a_study_writes_about_the_named_column(settings, tmp_path, local):
    local.text = write_pair
    path = write(tmp_path / "s.jsonl", [{"question": f"who {i}", "body": p} for i, p in enumerate(passages(4))])

    def about(name, column):
        config = make(settings, tmp_path, "retrieval", QUERIES, writing={"sources": str(path), "sources_text": column})
        with open_study(config, out=tmp_path / name) as flow:
            return set(next(iter(flow.pools.values())).corpus.targets)

    assert about("a", "body") == set(passages(4))
    assert about("b", "question") == {f"who {i}" for i in range(4)}


# --- what is held out -----------------------------------------------------------------------------
@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(("task", "rows"), [("generation", QUESTIONS), ("retrieval", QUERIES)])
def test_held_out_sources_are_not_written_about_and_are_listed(settings, tmp_path, local, task, rows):
    local.text = write_pair

    def sides(corpus):
        return set(corpus.targets if task == "retrieval" else corpus.contexts)

    grouped = {"group": "target"} if task == "retrieval" else {}
    config = make(settings, tmp_path, task, rows)
    config["data"] |= grouped
    with open_study(config, out=tmp_path / "plain") as flow:
        split = flow.study.split
        held_out = sides(split.validation) | set(split.test.sources_for_leak_guard())
        shown = sorted(sides(split.train))[0]
    given = [*(source.upper() for source in sorted(held_out)), shown, *passages(3)]
    path = write(tmp_path / "s.jsonl", [{"text": source} for source in given])
    made = make(settings, tmp_path, task, rows, writing={"sources": str(path)})
    made["data"] |= grouped
    with open_study(made, out=tmp_path / "run") as flow:
        wanted = flow.study.writing
        log = flow.study.folder.access_log()
        about = {source for pool in flow.pools.values() for source in sides(pool.corpus)}
    assert about == {shown, *passages(3)} == {stratum.source for stratum in wanted.strata.values()}
    assert set(wanted.left_out) == {source.upper() for source in held_out}
    listed = [json.loads(line) for line in (tmp_path / "run" / LEFT_OUT).read_text(encoding="utf-8").splitlines()]
    assert {row["source"] for row in listed} == set(wanted.left_out)
    assert ("leak-guard", "contexts or passages, against leaks") in log
    write(path, [{"text": source} for source in held_out])
    with pytest.raises(InputError, match="are those of validation or the locked test; give others to write about"):
        with open_study(made, out=tmp_path / "none"):
            pass


# --- no more than is needed -----------------------------------------------------------------------
@pytest.mark.slow  # with the others of its kind
def test_no_more_sources_are_asked_about_than_rows_are_needed_and_they_nest(settings, tmp_path, local):
    local.text = write_pair
    path = write(tmp_path / "many.jsonl", [{"text": p} for p in passages(60)])
    base = make(settings, tmp_path, "retrieval", QUERIES, writing={"sources": str(path)})

    def chosen(name, **changes):
        with open_study({**base, **changes}, out=tmp_path / name) as flow:
            wanted, needed = flow.study.writing, flow.study.block_rows()[""]
        assert needed <= len(wanted.strata) * wanted.spec.rows_per_label < needed + wanted.spec.rows_per_label
        assert wanted.spec.rows_per_label == math.ceil(needed / 60)
        return {stratum.source for stratum in wanted.strata.values()}

    few = chosen("a", mix={"shares": [0.4], "shape_share": 0.4})
    more = chosen("b", mix={"shares": [0.6], "shape_share": 0.6})
    other = chosen("c", mix={"shares": [0.4], "shape_share": 0.4}, seed=7)
    assert few < more < set(passages(60)) and few != other
    chosen("d", mix={"shares": [0.8], "shape_share": 0.8})  # more rows than passages
    with open_study({**base, "mix": {"shares": [0.6], "shape_share": 0.6}}, out=tmp_path / "b") as flow:
        needed = flow.study.block_rows()[""]
        for pool in flow.pools.values():
            assert set(pool.corpus.targets) == more
            assert [int((pool.corpus.blocks == block).sum()) for block in (0, 1)] == [needed, needed]


# --- the leak guard -------------------------------------------------------------------------------
def test_the_leak_guard_reads_what_is_held_out_once(settings, tmp_path):
    class Counting:
        def __init__(self, encoder):
            self._encoder, self.calls = encoder, []

        def encode(self, texts):
            self.calls.append(len(texts))
            return self._encoder.encode(texts)

    with open_study({**settings, "dials": [{"name": "sampling"}]}, out=tmp_path / "run") as flow:
        study = flow.study
        counting = Counting(study.encoder)
        guard = guard_leaks(replace(study, encoder=counting))
        test = study.locked_test("texts, against leaks").texts_for_leak_guard()
    held_out = [*study.split.validation.texts, *test]
    lots = [["nothing of it", held_out[0].upper()], [test[3], "nor this"], []]
    found = [guard(lot) for lot in lots]
    assert found == [[None, "leaks held-out data (exact)"], ["leaks held-out data (exact)", None], []]
    assert sorted(counting.calls) == sorted([2, 2, len(held_out), len(study.train)])
    encode = study.encoder.encode
    for lot in lots[:2]:
        real = study.train.texts
        finder = LeakFinder(held_out, reference=real, held_out_vectors=encode(held_out), reference_vectors=encode(real))
        leaks = finder.find(lot, encode(lot))
        assert [leak.row for leak in leaks.found] == [i for i, why in enumerate(guard(lot)) if why]


# --- the command line -----------------------------------------------------------------------------
def test_cuvee_generate_takes_the_column_and_refuses_unknown_kinds_of_files(tmp_path, capsys, local):
    local.text = write_pair
    real = write(tmp_path / "real.jsonl", [{"text": r["text"], "target": r["target"]} for r in QUERIES])
    path = write(tmp_path / "s.jsonl", [{"question": "who", "body": p} for p in passages(3)])
    where = ["--task", "retrieval", "--base-url", f"http://127.0.0.1:{local.port}/v1", "--model", "tiny", "--rows", 2]
    out = tmp_path / "made.jsonl"
    given = ["generate", real, *where, "--sources", path, "--out", out]
    code, _, err = call(capsys, *given, "--sources-column", "body")
    assert code == 0, err
    targets = {json.loads(line)["target"] for line in out.read_text(encoding="utf-8").splitlines()}
    assert targets == set(passages(3))
    asked = len(local.bodies)
    assert "it has question, body" in refused(capsys, *given, "--sources-column", "bdy")
    assert "--sources-column has no effect here: it goes with --sources" in refused(
        capsys, "generate", real, *where, "--sources-column", "body"
    )
    assert "unknown kind of file; use .parquet, .jsonl, .csv" in refused(
        capsys, "generate", real, *where, "--out", tmp_path / "made.txt"
    )
    assert "or the name of a folder" in refused(capsys, "mix", real, real, "--out", tmp_path / "blend.tsv")
    assert "unknown kind of file" in refused(
        capsys, "replace", real, real, "--m-p", 1, "--out", tmp_path / "replaced.xlsx"
    )
    assert len(local.bodies) == asked
