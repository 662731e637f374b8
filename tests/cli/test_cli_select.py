"""``cuvee select``, ``mix`` to a dataset, and ``replace``: what each option changes, and what is refused."""

import json
import re

import datasets
import numpy as np
import pytest

from command_line import call, refused
from cuvee.corpus import Corpus, load_corpus, write_corpus
from cuvee.study.demo import read_headlines

pytestmark = pytest.mark.slow  # each is quick, together they are not

LABELS = ("business", "politics", "sports")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pool(headlines, tmp_path):
    """450 other headlines, 10 of which occur twice, 6 are real rows, 5 are broken, and 4 held-out ones."""
    real = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    known = {row["text"] for row in real}
    rows = [{"text": t, "label": y, "source": t[:1]} for t, y in read_headlines() if y in LABELS and t not in known]
    rows = [row for label in LABELS for row in [r for r in rows if r["label"] == label][:150]]
    held_out = write(
        tmp_path / "held_out.jsonl", [{"text": row["text"].upper(), "label": "x"} for row in rows[200:204]]
    )
    broken = [{"text": "no no no no no no no no no no", "label": "sports", "source": "n"}]
    copies = [{**row, "source": "r"} for row in real[:6]]
    return write(tmp_path / "pool.jsonl", [*rows, *rows[:10], *copies, *broken]), held_out


def look(capsys, *arguments):
    code, out, err = call(capsys, "select", *arguments, "--encoder", "hashing", "--json")
    assert code == 0, err
    return json.loads(out)


def test_levels_are_files_of_equal_rows_that_rise(pool, tmp_path, capsys):
    made = look(capsys, pool[0], "--rows", 60, "--levels", 3, "--out", tmp_path / "s.parquet")
    assert [p.rpartition("/")[2] for p in made["paths"]] == ["s-1.parquet", "s-2.parquet", "s-3.parquet"]
    corpora = [load_corpus(path) for path in made["paths"]]
    assert [len(c) for c in corpora] == [60] * 3
    assert all(c.label_counts() == corpora[0].label_counts() for c in corpora)
    assert set(corpora[0].origins) == {"synthetic"}
    for metric in ("vendi", "log_det"):
        assert (np.diff([part["values"][metric] for part in made["selections"]]) > 0).all()


@pytest.mark.slow
def test_a_target_and_each_method_give_one_file(pool, headlines, tmp_path, capsys):
    out = tmp_path / "one.jsonl"
    ends = look(capsys, pool[0], "--rows", 40, "--levels", 2, "--metric", "log_det", "--out", tmp_path / "e.csv")
    low, high = (part["values"]["log_det"] for part in ends["selections"])
    made = look(capsys, pool[0], "--rows", 40, "--target", (low + high) / 2, "--metric", "log_det", "--out", out)
    assert made["selections"][0]["values"]["log_det"] == pytest.approx((low + high) / 2, rel=0.02)
    rows = set()
    for method in ("random", "k_center", "log_det", "lowest_shift"):
        more = ["--real", headlines] if method == "lowest_shift" else []
        found = look(capsys, pool[0], "--rows", 40, "--method", method, "--out", out, *more)
        assert found["selections"][0]["name"] == method
        rows.add(tuple(load_corpus(out).texts))
    assert len(rows) == 4


def test_filters_take_what_they_say_and_list_it(pool, headlines, tmp_path, capsys):
    path, held_out = pool
    removed = tmp_path / "removed.jsonl"
    base = [path, "--out", tmp_path / "clean.parquet", "--removed", removed]
    made = look(capsys, *base, "--real", headlines, "--held-out", held_out)
    steps = {step["name"]: step for step in made["filters"]}
    assert steps["dedupe"]["removed"] == 16 and steps["degenerate"]["removed"] == 1 and steps["leak"]["removed"] >= 4
    lines = [json.loads(line) for line in removed.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == sum(step["removed"] for step in made["filters"])
    clean = load_corpus(made["paths"][0])
    assert len(clean) == steps["leak"]["rows_after"] and made["selections"] == []
    # each option changes what it says
    plain = look(capsys, *base)
    assert [s["name"] for s in plain["filters"]] == ["dedupe", "degenerate"] and plain["filters"][0]["removed"] == 10
    assert [s["name"] for s in look(capsys, *base, "--no-dedupe", "--keep-degenerate")["filters"]] == []
    assert look(capsys, *base, "--near", 0.7)["filters"][0]["removed"] > 10
    half = look(capsys, *base, "--real", headlines, "--agree-top", 0.5)["filters"][-1]
    assert half["name"] == "agreement" and half["rows_after"] == pytest.approx(half["rows_before"] / 2, abs=1)
    sure = look(capsys, *base, "--real", headlines, "--agree-threshold", 0.5)["filters"][-1]
    assert 0 < sure["removed"] < sure["rows_before"]
    few = look(capsys, *base, "--group", "source", "--per-group", 2)["filters"][-1]
    assert few["name"] == "fewer-per-group" and few["rows_after"] <= 2 * 40
    assert look(capsys, *base, "--per-cluster", 1)["filters"][-1]["name"] == "fewer-per-cluster"


@pytest.mark.slow
def test_lengths_may_be_left_free(pool, tmp_path, capsys):
    base = [pool[0], "--rows", 60, "--levels", 2, "--out", tmp_path / "s.parquet"]
    matched = [part["length_difference"] for part in look(capsys, *base)["selections"]]
    free = [part["length_difference"] for part in look(capsys, *base, "--no-match-lengths")["selections"]]
    assert 2 * max(matched) < max(free)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--levels", 3], "--levels has no effect here.* --rows"),
        (["--rows", 5, "--levels", 3, "--target", 2], "--levels and --target exclude each other"),
        (["--rows", 5, "--method", "kcenter"], "'kcenter' is not one of .*'k_center'"),
        (["--rows", 5, "--method", "random", "--metric", "log_det"], "--metric has no effect here"),
        (["--rows", 5, "--metric", "vendy"], "'vendy' is not one of .*'vendi'"),
        (["--rows", 5, "--method", "lowest_shift"], "give --real FILE"),
        (["--rows", 99999], r"99999 rows are needed, \d+ of 467 passed the filters \(dedupe took 10, "),
        (["--rows", 99999, "--no-dedupe", "--keep-degenerate"], "99999 rows were asked for, the pool has 467"),
        (["--rows", 20, "--target", 1e6], "out of reach"),
        (["--agree-top", 0.5], "give --real FILE"),
        (["--per-group", 2], "--per-group needs --group"),
        (["--no-dedupe", "--near", 0.9], "--near has no effect here"),
        (["--out", "x.txt"], "unknown kind of file"),
        (["--filter", "no_such_module:f"], "no_such_module"),
        (["--held-out", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(pool, capsys, options, says):

    assert re.search(says, refused(capsys, "select", pool[0], "--encoder", "hashing", *options))


def test_pools_without_labels_are_one_stratum(pool, tmp_path, capsys):
    rows = [json.loads(line) for line in pool[0].read_text(encoding="utf-8").splitlines()]
    path = write(
        tmp_path / "pairs.jsonl", [{"query": r["text"], "passage": f"passage {i}"} for i, r in enumerate(rows)]
    )
    base = [path, "--task", "retrieval", "--text", "query", "--label", "passage", "--out", tmp_path / "s.parquet"]
    made = look(capsys, *base, "--rows", 60, "--levels", 2)
    assert [part["label_counts"] for part in made["selections"]] == [{"": 60}, {"": 60}]
    assert max(part["length_difference"] for part in made["selections"]) < 0.1


# --- mix ------------------------------------------------------------------------------------------
def test_mix_writes_a_dataset_that_opens_with_its_card(pool, headlines, tmp_path, capsys):
    folder = tmp_path / "blend"
    options = ["--licence", "cc-by-4.0", "--language", "en"]
    code, out, err = call(capsys, "mix", headlines, pool[0], "--share", 0.25, "--out", folder, *options, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["rows"] == 201 and made["synthetic"]["rows"] == 51 and made["words"] > 1000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in card and "--share 0.25" in card
    opened = datasets.load_dataset(str(folder), split="train")
    assert len(opened) == 201 and set(opened["origin"]) == {"real", "synthetic"}
    # again: its own dataset is replaced, a folder of other things is not
    assert call(capsys, "mix", headlines, pool[0], "--out", folder)[0] == 0
    (folder / "mine.txt").write_text("kept")
    assert "blend" in refused(capsys, "mix", headlines, pool[0], "--out", folder)


def test_mix_refuses_a_blend_that_holds_held_out_rows(pool, headlines, tmp_path, capsys):
    said = refused(
        capsys, "mix", headlines, pool[0], "--share", 0.74, "--held-out", pool[1], "--out", tmp_path / "b.parquet"
    )
    assert "is a held-out text" in said and "held_out.jsonl" in said
    assert not (tmp_path / "b.parquet").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "b.parquet", "--push", "me/blend"], "--push has no effect here"),
        (["--out", "b.parquet", "--licence", "mit"], "--licence has no effect here"),
        (["--out", "folder", "--licence", "Not A Licence"], "--licence: 'Not A Licence' is no licence identifier"),
        (["--out", "folder", "--language", "english"], "--language is 'english'"),
        (["--out", "folder", "--public"], "--public has no effect here"),
        (["--task", "translation"], "'translation' is not one of"),
        (["--share", "1"], "--share is 1, which augment cannot reach"),
    ],
)
def test_mix_refuses_options_without_effect(pool, headlines, tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "mix", headlines, pool[0], *options)


def test_push_without_a_token_says_so_and_keeps_the_dataset(pool, headlines, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path / "blend"
    assert "HF_TOKEN is not set" in refused(capsys, "mix", headlines, pool[0], "--out", folder, "--push", "me/blend")
    assert (folder / "train.parquet").is_file()


# --- replace --------------------------------------------------------------------------------------
def test_replace_lets_paraphrases_stand_in_for_other_rows(headlines, tmp_path, capsys):
    real = load_corpus(headlines)
    rows = [
        {"text": f"{t}, version {p}", "label": y, "source": i}
        for i, t, y in zip(real.ids, real.texts, real.targets, strict=True)
        for p in range(3)
    ]
    made = write(tmp_path / "paraphrases.jsonl", rows)
    out = tmp_path / "r.parquet"
    code, said, err = call(
        capsys, "replace", headlines, made, "--m-p", 3, "--r", 4, "--group", "source", "--out", out, "--json"
    )
    assert code == 0, err
    found = json.loads(said)
    assert found["m_r"] == 12 and found["rows"] == len(real)
    corpus = load_corpus(out)
    assert corpus.label_counts() == real.label_counts()
    assert sum(text.rpartition(", version ")[1] != "" for text in corpus.texts) == 12 * len(LABELS)
    smaller = tmp_path / "smaller.parquet"
    call(
        capsys, "replace", headlines, made, "--m-p", 1, "--max-m-p", 3, "--r", 4, "--group", "source", "--out", smaller
    )
    used = {t for t in load_corpus(smaller).texts if ", version " in t}
    assert used <= set(corpus.texts) and len(used) == 4 * len(LABELS)
    assert "the largest possible m_p is 3" in refused(
        capsys, "replace", headlines, made, "--m-p", 4, "--r", 4, "--group", "source"
    )


@pytest.fixture
def questions(tmp_path):
    """Real questions with columns of the user's own, and synthetic ones as Cuvée writes them."""
    real = [{"question": f"why {i}?", "answer": f"so {i}", "about": f"story {i}"} for i in range(8)]
    made = [{"text": f"when {i}?", "target": f"then {i}", "context": f"story {i}"} for i in range(8)]
    synthetic = tmp_path / "synthetic.parquet"
    write_corpus(Corpus.from_rows(made, origin="synthetic", task="generation"), synthetic)
    return write(tmp_path / "qa.jsonl", real), synthetic


def test_named_columns_are_those_of_the_real_file_and_contexts_stay(questions, tmp_path, capsys):
    real, synthetic = questions
    blend = tmp_path / "blend.parquet"
    named = ["--task", "generation", "--text", "question", "--label", "answer"]
    code, _, err = call(capsys, "mix", real, synthetic, *named, "--context", "about", "--out", blend)
    assert code == 0, err
    rows = load_corpus(blend, task="generation")
    assert sorted(rows.contexts) == sorted(2 * [f"story {i}" for i in range(8)])
    assert {t.split()[0] for t in rows.texts} == {"why", "when"}
    made = look(capsys, synthetic, "--real", real, *named, "--out", tmp_path / "s.parquet")
    assert made["filters"][0]["rows_after"] == 8
    code, out, err = call(
        capsys, "measure", synthetic, "--against", real, *named[2:], "--encoder", "hashing", "--metric", "mmd", "--json"
    )
    assert code == 0 and "mmd" in json.loads(out), err


def test_a_named_column_that_no_file_has_is_told(questions, capsys):
    real, synthetic = questions
    base = ["--task", "generation", "--label", "answer"]
    assert "no column 'quest'" in refused(capsys, "mix", real, synthetic, *base, "--text", "quest")
    assert "no column 'quest'" in refused(capsys, "measure", synthetic, "--text", "quest", "--encoder", "hashing")
    assert "--context has no effect here" in refused(
        capsys, "mix", real, synthetic, "--context", "about", "--task", "retrieval"
    )


def test_a_series_shorter_than_its_member_is_one_line(pool, capsys):
    given = [pool[0], pool[0], "--m-p", 3, "--max-m-p", 2, "--group", "source"]
    assert "--max-m-p 2 is below --m-p 3" in refused(capsys, "replace", *given)


def test_options_of_a_blend_change_what_they_say(questions, tmp_path, capsys):
    real, synthetic = questions
    base = ["mix", real, synthetic, "--task", "generation", "--text", "question", "--label", "answer"]
    assert "the largest share this pool allows is 0.5" in refused(capsys, *base, "--share", 0.75)
    folder = tmp_path / "blend"
    given = ["--share", 0.75, "--allow-repeats", "--language", "en", "--out", folder]
    code, out, err = call(capsys, *base, *given, "--json")
    made = json.loads(out)
    assert (code, made["real_rows"], made["synthetic_rows"], made["most_repeats"]) == (0, 8, 24, 3), err
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "- en\n" in card
    draws = []
    for seed in (0, 1, 0):
        given = ["--share", 0.2, "--seed", seed, "--out", tmp_path / f"b{seed}.jsonl"]
        assert call(capsys, *base, *given)[0] == 0
        draws.append((tmp_path / f"b{seed}.jsonl").read_bytes())
    assert draws[0] == draws[2] != draws[1]


def test_rows_that_name_a_held_out_row_as_their_seed_are_refused(headlines, pool, tmp_path, capsys):
    held_out = load_corpus(pool[0]).take(range(100, 110))
    given, made = tmp_path / "held.parquet", tmp_path / "made.parquet"
    write_corpus(held_out, given)
    rows = [{"text": f"quite other words {k}", "target": "sports", "seed_ids": [held_out.ids[k]]} for k in range(9)]
    rows.append({"text": "of no held-out row", "target": "sports", "seed_ids": ["some other"]})
    write_corpus(Corpus.from_rows(rows, origin="synthetic"), made)
    found = look(capsys, made, "--held-out", given, "--encoder", "hashing", "--out", tmp_path / "s.parquet")
    assert {s["name"]: s["reasons"] for s in found["filters"]}["leak"] == {"leaks held-out data (seed row)": 9}
    mixed = ["mix", headlines, made, "--amount", "all", "--held-out", given, "--out", tmp_path / "b.parquet"]
    code, _, err = call(capsys, *mixed)
    assert code == 2 and "written from a held-out row" in err and "(9 of 160 rows are)" in err


def test_an_amount_is_a_share_in_another_notation(headlines, pool, tmp_path, capsys):
    kept = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    names = sorted({row["label"] for row in kept})
    real = write(
        tmp_path / "real.jsonl", [row for name in names for row in [r for r in kept if r["label"] == name][:5]]
    )
    base = ["mix", real, pool[0], "--out", tmp_path / "b.jsonl", "--json"]
    found = {}
    for given in (["--share", 0.75], ["--amount", "3x"], ["--amount", 15], ["--amount", "all"], ["--amount", "99x"]):
        code, out, err = call(capsys, *base, *given)
        assert code == 0, err
        found[str(given[1])] = json.loads(out) | {"rows": (tmp_path / "b.jsonl").read_bytes()}
    assert found["0.75"]["rows"] == found["3x"]["rows"] == found["15"]["rows"]
    pool_rows = len(load_corpus(pool[0]))
    assert found["all"]["synthetic_rows"] == found["99x"]["synthetic_rows"] == pool_rows
    fewer = [f["sentence"] for each in found.values() for f in each["findings"] if f["id"] == "fewer-rows"]
    assert len(fewer) == 1 and "for 3 of 3 labels" in fewer[0] and fewer[0].endswith("of 495).")
    for given, told in (
        (["--amount", "much"], "--amount: amounts has 'much'; give 3x"),
        (["--amount", "3x", "--share", 0.5], "--share has no effect"),
        (["--amount", "3x", "--regime", "replace"], "with --regime replace give --share"),
    ):  # fmt: skip
        assert told in refused(capsys, *base, *given)


def test_a_blend_of_weighted_rows_says_what_they_count(pool, headlines, tmp_path, capsys):
    rows = load_corpus(pool[0], origin="synthetic")
    weighted = tmp_path / "weighted.jsonl"
    write_corpus(rows.with_columns(weight=np.tile([0.0, 1.0], len(rows))[: len(rows)]), weighted)
    base = ["mix", headlines, weighted, "--share", 0.5, "--out", tmp_path / "b.parquet"]
    code, out, err = call(capsys, *base)
    zero = int((load_corpus(tmp_path / "b.parquet").weights == 0).sum())
    assert zero > 0, err
    assert (code, f"rows have weights: {zero} weigh 0, all count as {300 - zero} of equal weight" in out) == (0, True)
    assert json.loads(call(capsys, *base, "--json")[1])["effective_rows"] == pytest.approx(300 - zero)
    plain = call(capsys, "mix", headlines, pool[0], "--share", 0.5, "--out", tmp_path / "p.parquet")[1]
    assert "weights" not in plain


def test_a_pool_of_which_nothing_is_left_is_told_and_nothing_is_written(headlines, tmp_path, capsys):
    given = [headlines, "--held-out", headlines, "--encoder", "hashing", "--out", tmp_path / "s.parquet"]
    assert "0 of 150 passed the filters (leak took 150)" in refused(capsys, "select", *given)
    assert not (tmp_path / "s.parquet").exists()


def test_contexts_of_a_pool_stay(tmp_path, capsys):
    rows = [{"question": f"why is it {i}?", "answer": f"so {i}", "about": f"story {i // 2}"} for i in range(20)]
    pool, out = write(tmp_path / "pool.jsonl", rows), tmp_path / "s.parquet"
    named = ["--task", "generation", "--text", "question", "--label", "answer"]
    look(capsys, pool, *named, "--context", "about", "--rows", 6, "--out", out)
    assert set(load_corpus(out, task="generation").contexts) <= {row["about"] for row in rows}
    assert "no column 'abut'" in refused(capsys, "select", pool, *named, "--context", "abut")
    assert "--context has no effect here" in refused(
        capsys, "select", pool, "--context", "about", "--task", "retrieval"
    )


def test_answers_are_filtered_by_their_context_and_a_reader_must_be_one(questions, tmp_path, capsys):
    real, _ = questions
    rows = [
        {"question": f"when {i}?", "answer": f"story {i}" if i % 2 else "nothing", "about": f"it is story {i}"}
        for i in range(8)
    ]
    pool, named = write(tmp_path / "pool.jsonl", rows), ["--context", "about", "--out", tmp_path / "s.parquet"]
    look(capsys, pool, *named, "--grounded", 0.5)
    assert set(load_corpus(tmp_path / "s.parquet").targets) == {f"story {i}" for i in range(1, 8, 2)}
    given = ["select", pool, *named]
    assert "--reader is 'smol'; give embedded" in refused(capsys, *given, "--real", real, "--reader", "smol")
    assert "give --real FILE" in refused(capsys, *given, "--reader", "embedded")
    assert "--reader-agrees has no effect" in refused(capsys, *given, "--reader-agrees", 0.4)
    assert "the task retrieval has none" in refused(
        capsys, "select", pool, "--text", "question", "--label", "answer", "--task", "retrieval", "--grounded", 0.5
    )


def test_a_pool_written_from_held_out_rows_is_refused_as_a_set(headlines, tmp_path, capsys):
    known = {json.loads(line)["text"] for line in headlines.read_text(encoding="utf-8").splitlines()}
    rows = [{"text": t, "label": y} for t, y in read_headlines() if y in LABELS and t not in known][:300]
    held_out = write(tmp_path / "held_out.jsonl", rows)
    halves = [{**row, "text": " ".join([*row["text"].split()[::2], "says", "report"])} for row in rows]
    pool = write(tmp_path / "halves.jsonl", [row for row in halves if len(row["text"].split()) > 4])
    given = [pool, "--real", headlines, "--held-out", held_out, "--out", tmp_path / "out.jsonl"]
    line = refused(capsys, "select", *given, "--encoder", "hashing")
    assert re.search(r"of \d+ rows whose nearest real row is held out, \d", line) and "--no-set-test" in line
    look(capsys, *given, "--no-set-test")
    assert len(load_corpus(tmp_path / "out.jsonl")) > 200
    without_real = [*given[:1], *given[3:], "--no-set-test"]
    assert "--no-set-test" in refused(capsys, "select", *without_real)


def test_two_rules_of_agreement_exclude_each_other(pool, headlines, capsys):
    line = refused(capsys, "select", pool[0], "--real", headlines, "--agree-threshold", 0.1, "--agree-top", 0.8)
    assert "threshold is 0.1 and top 0.8; give exactly one of them" in line


def test_echoes_of_given_prompts_go(pool, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("You are an editor.\nWrite one short headline about sports for a paper of today.\n")
    rows = [json.loads(line) for line in pool[0].read_text(encoding="utf-8").splitlines()]
    echo = {"text": "headline: write one short headline about sports for a paper", "label": "sports", "source": "e"}
    path = write(tmp_path / "echoing.jsonl", [*rows, echo])
    counts = []
    for more in ([], ["--prompts", prompts]):
        made = look(capsys, path, "--out", tmp_path / "clean.jsonl", *more)
        counts.append(next(s for s in made["filters"] if s["name"] == "degenerate")["removed"])
    assert counts[1] == counts[0] + 1
    assert "--prompts" in refused(capsys, "select", path, "--prompts", prompts, "--keep-degenerate")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "empty.txt: holds no prompt" in refused(capsys, "select", path, "--prompts", empty)


def test_mix_tells_of_repeated_rows_and_leaves_them_out(headlines, tmp_path, capsys):
    real = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    new = [{"text": f"new {row['text']}", "label": row["label"]} for row in real]
    synthetic = write(tmp_path / "synthetic.jsonl", [*new, *new[:5], *real[:3]])
    out = tmp_path / "blend.jsonl"
    code, shown, _ = call(capsys, "mix", headlines, synthetic, "--share", 0.3, "--out", out)
    told = f"8 of {len(new) + 8} synthetic rows repeat a synthetic or a real row"
    assert code == 0 and shown.startswith(f"- {told}. --dedupe leaves them out.")
    code, shown, _ = call(capsys, "mix", headlines, synthetic, "--share", 0.5, "--out", out, "--dedupe", "--json")
    assert [each["sentence"] for each in json.loads(shown)["findings"]] == [f"{told} and are left out."]
    assert len(set(load_corpus(out).texts)) == len(real) + len(new)
    code, shown, _ = call(capsys, "mix", headlines, write(tmp_path / "new.jsonl", new), "--out", out, "--json")
    assert [each["id"] for each in json.loads(shown)["findings"]] == ["nothing-wrong"]
