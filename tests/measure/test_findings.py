"""Findings on real pools: each rule fires on its damage and not without it, and says what is worst first."""

import gzip
import json
import os
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.defects import DegenerateReason
from cuvee.encoders import HashingEncoder, KnownVectors, load_encoder
from cuvee.measure import GivenVectors, measure_corpus, measure_subject, measure_vectors
from cuvee.measure.findings import RULES, tell_words
from cuvee.measure.subject import Subject

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"real pools of {DATA} are needed")
PROMPT = "Write the title of a question about programming that a user of a forum would ask."
GERMAN = (
    "Wie kann ich in diesem Programm eine Liste sortieren", "Warum bekomme ich beim Start immer einen Fehler",
    "Gibt es einen Weg, die Datei ohne Neustart zu laden", "Kann mir jemand erklären, wie man das einrichtet",
    "Was ist der Unterschied zwischen diesen beiden Funktionen",
)  # fmt: skip


def read(name, part, count):
    """That many rows of a file, evenly spaced."""
    path = next((DATA / name).glob(f"{part}.jsonl*"))
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]


def corpus(rows):
    return Corpus.from_rows([{"text": r["text"], "target": r.get("label", "x")} for r in rows])


def spoil(rows, every, change):
    """The rows with every k-th one changed."""
    return [r | change(r, i) if i % every == 0 else r for i, r in enumerate(rows)]


def text(write):
    return lambda row, i: {"text": write(row["text"], i)}


def wrong_label(rows):
    labels = sorted({r["label"] for r in rows})
    return lambda row, i: {"label": labels[(labels.index(row["label"]) + 1 + i % 7) % len(labels)]}


def mangle(words, _i):
    """UTF-8 read as Windows-1252."""
    return f"“{words}” – café".encode().decode("cp1252", "ignore")


def cut(words, _i):
    kept = words.split()
    return " ".join(kept[: max(4, 2 * len(kept) // 3)]) + " the"


# --- each rule alone, on little data ------------------------------------------------------------------
REAL = read("gptaug_stackoverflow", "train", 400) if DATA.is_dir() else []
POOL = read("gptaug_stackoverflow", "synthetic", 200) if DATA.is_dir() else []
TEST = read("gptaug_stackoverflow", "test", 60) if DATA.is_dir() else []
TWEETS = read("workergpt_sentiment", "train", 400) if DATA.is_dir() else []
LABEL = POOL[0]["label"] if POOL else ""
PAIR_RULES = ("ungrounded", "unanswered", "answer-copies", "answer-repeats", "answer-lengths")
SHOWN = {
    "empty": "...", "chat template": "<|im_end|>", "error message": "ERROR: rate limit exceeded", "too short": "a",
    "refusal": "I'm sorry, but I cannot assist with that request.", "chatter": "Here are five example titles:",
    "repetition": "go go go go go go go go go go", "markup": "**Sort** a list", "placeholder": "Ask [Name] {topic}",
}  # fmt: skip


def two_labels(rows):
    """Rows of two coarse labels that a probe of few rows can tell."""
    return [r | {"label": "code" if r["label"] < "m" else "tools"} for r in rows]


LIKE = [r for r in read("gptaug_stackoverflow", "synthetic", 27930) if int(r["origin"]) < 18] if DATA.is_dir() else []
SMS = read("sms_spam", "train", 400) if DATA.is_dir() else []
CASES = {
    "leaks": (spoil(POOL, 10, lambda _, i: TEST[i // 10 % 60]), POOL),
    "set-leak": None,  # needs a pool that was written from held-out rows: tests/test_defects.py has one
    "labels": (spoil(SMS[1::2], 3, lambda r, _: {"label": "spam" if r["label"] == "ham" else "ham"}), SMS[1::2]),
    "missing-labels": ([r for r in POOL if r["label"] != LABEL], POOL),
    "repeats": (POOL[:150] + POOL[:50], POOL),
    "near-repeats": (POOL[:150] + [r | {"text": r["text"] + " now"} for r in POOL[:50]], POOL),
    "openings": (spoil(POOL, 3, text(lambda t, _: f"In the context of software, {t}")), POOL),
    "endings": (spoil(POOL, 3, text(lambda t, _: f"{t} as a beginner")), POOL),
    "sequences": (spoil(POOL, 3, text(lambda t, i: f"{i} {t[:20]} when I try to run {t[20:]}")), POOL),
    "copies": (spoil(POOL, 8, lambda _, i: REAL[i]), POOL),
    "narrow": ([POOL[i % 20] | {"text": f"{POOL[i % 20]['text']} {i}"} for i in range(200)], POOL),
    "wide": (POOL, LIKE[1::2]),  # real rows of 18 meanings
    "narrow-label": (
        [r for i, r in enumerate(two_labels(POOL)) if r["label"] == "tools" or i < 20]
        + 4 * [r for r in two_labels(POOL)[:20] if r["label"] == "code"],
        two_labels(POOL),
    ),
    "shift": (TWEETS[:200], REAL[1::2]),
    "lengths": ([r | {"text": f"{r['text']} and {POOL[-i]['text']}"} for i, r in enumerate(POOL)], REAL[::2]),
    "prompt-echo": (spoil(POOL, 10, text(lambda t, _: f"{PROMPT} {t}")), POOL),
    "broken-characters": (spoil(POOL, 10, text(mangle)), POOL),
    "wrong-language": (spoil(POOL, 10, text(lambda _, i: GERMAN[i // 10 % 5])), POOL),
    "truncated": (spoil(TWEETS[:200], 10, text(cut)), TWEETS[:200]),
} | {k.replace(" ", "-"): (spoil(POOL, 10, text(lambda _t, _i, v=v: v)), POOL) for k, v in SHOWN.items()}  # fmt: skip


def findings_of(rows, rule, *, real=None):
    against = {"truncated": TWEETS, "labels": SMS[::2], "wide": LIKE[::2], "narrow-label": two_labels(REAL)}.get(
        rule.id, REAL
    )
    more = {"held_out": [r["text"] for r in TEST]} if rule.id == "leaks" else {}
    found = measure_corpus(
        corpus(rows), against=corpus(against) if real is None else real, encoder=HashingEncoder(), prompts=[PROMPT],
        metrics=rule.needs, permutations=40, **more,
    )  # fmt: skip
    return {f.id: f for f in found.findings}


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.id not in ("set-leak", *PAIR_RULES)], ids=lambda rule: rule.id
)
def test_a_rule_fires_on_its_damage_and_not_without_it(rule):
    damaged, whole = CASES[rule.id]
    found = findings_of(damaged, rule)[rule.id]
    assert found.severity > 0 and found.remedy and found.source and found.value is not None
    assert "{" not in found.sentence and found.sentence[0].isupper() | found.sentence[0].isdigit()
    assert rule.id not in findings_of(whole, rule)


# --- answers of real pairs ----------------------------------------------------------------------------
QA = [r for r in read("fairytaleqa", "train", 900) if len(r["context"].split()) < 250][:400] if DATA.is_dir() else []


def other_answer(_row, i):
    return {"answer": QA[(7 * i + 11) % len(QA)]["answer"]}


PAIRS = {
    "ungrounded": spoil(QA[::2], 2, other_answer),
    "unanswered": spoil(QA[::2], 2, other_answer),
    "answer-copies": spoil(QA[::2], 20, lambda row, _: {"answer": row["question"]}),
    "answer-repeats": spoil(QA[::2], 3, lambda _row, _: {"answer": "the king and the queen"}),
    "answer-lengths": spoil(QA[::2], 1, lambda row, _: {"answer": " ".join(row["context"].split()[:25])}),
}


def pairs(rows):
    made = [{"text": r["question"], "target": r["answer"], "context": r["context"]} for r in rows]
    return Corpus.from_rows(made, task="generation")


def read_again(rows):
    """A reader that knows the real answer of two questions in three."""
    known = {(r["question"], r["context"]): r["answer"] for i, r in enumerate(QA) if i % 3}
    keys = zip(rows.texts, rows.contexts, rows.targets, strict=True)
    return np.array([float(known.get((text, context)) == target) for text, context, target in keys])


@pytest.mark.parametrize("damage", PAIRS)
def test_a_rule_of_answers_fires_on_its_damage_and_not_without_it(damage):
    (rule,) = [rule for rule in RULES if rule.id == damage]
    found = {}
    for name, rows in (("damaged", PAIRS[damage]), ("whole", QA[::2])):
        subject = Subject(corpus=pairs(rows), against=pairs(QA[1::2]), reader=read_again, encoder=HashingEncoder())
        measured = measure_subject(subject, rule.needs, name=name, findings=True)
        found[name] = {each.id: each for each in measured.findings}
    assert damage not in found["whole"]
    told = found["damaged"][damage]
    assert told.severity > 0 and told.remedy and told.yardstick is not None and "{" not in told.sentence


def test_answers_of_other_contexts_are_told_by_the_words_that_real_answers_take_from_theirs():
    """The yardstick is the real rows' own number; random words, and answers in other rows' place, stay far below it."""
    rng = random.Random(0)
    real, shares = pairs(QA[1::2]), {}
    for name, change in (
        ("real", lambda _row, _: {}), ("other", other_answer),
        ("random", lambda _row, i: {"answer": " ".join(rng.sample(QA[i - 1]["context"].split(), 6))}),
    ):  # fmt: skip
        made = measure_corpus(pairs(spoil(QA[::2], 1, change)), against=real, metrics=["groundedness"])
        shares[name] = made.values["groundedness"].value
        told = [each.id for each in made.findings if each.severity]
        assert told == ([] if name == "real" else ["ungrounded"])
    assert shares["real"] > 0.8 and max(shares["other"], shares["random"]) < 0.5 * shares["real"]


def test_every_rule_has_a_case():
    assert {*CASES, *PAIRS} == {rule.id for rule in RULES} and len({rule.id for rule in RULES}) == len(RULES)
    assert {r.replace(" ", "-") for r in DegenerateReason.__args__} <= set(CASES)


def test_good_news_is_a_finding_and_says_what_was_looked_at():
    found = measure_corpus(corpus(REAL[::2]), against=corpus(REAL[1::2]), encoder=HashingEncoder(), permutations=40)
    (only,) = found.findings
    assert only.id == "nothing-wrong" and not only.severity and "no rows repeat others" in only.sentence
    assert str(found).startswith(f"- {only}\n") and "<li>Nothing wrong" in found._repr_html_()


def test_labels_that_never_agree_are_wrong_and_rows_without_labels_are_not_judged_by_them():
    rows = read("snips", "train", 120)
    real, encoder = corpus(rows[::2]), HashingEncoder()
    renamed = corpus([row | {"label": row["label"].upper()} for row in rows[1::2]])
    bare = corpus([row | {"label": ""} for row in rows[1::2]])
    found = {
        name: measure_corpus(pool, against=real, encoder=encoder) for name, pool in (("cap", renamed), ("bare", bare))
    }
    told = {name: " ".join(map(str, measured.findings)) for name, measured in found.items()}
    assert "About 100% of the labels look wrong" in told["cap"] and "labels agree" not in told["cap"]
    assert not measure_corpus(bare.take(range(3)), against=real, encoder=encoder, metrics=["vendi_q1"]).findings
    assert "label" not in told["bare"] and not found["bare"].values.keys() & {"label_noise", "label_distance"}


def test_without_real_rows_the_limits_are_stated_defaults():
    found = measure_corpus(corpus(POOL[:100] + POOL[:30]), encoder=HashingEncoder()).findings
    assert found[0].id == "repeats" and found[0].source == "stated default" and "2%" in found[0].sentence
    assert "real rows" not in found[-1].sentence  # which nobody gave


def test_vectors_alone_and_metrics_by_name_are_judged_by_what_they_have():
    rng = np.random.default_rng(0)
    ours, real = rng.normal(size=(80, 8)).astype(np.float32), rng.normal(size=(90, 8)).astype(np.float32)
    assert "shift" in [f.id for f in measure_vectors(ours + 1, against=real).findings]
    assert measure_corpus(corpus(POOL), metrics=["mean_words"]).findings == ()


def test_the_words_that_tell_are_those_that_were_put_in():
    ours, real = corpus(spoil(REAL[:150], 2, text(lambda t, _: f"{t} furthermore"))), corpus(REAL[150:300])
    subject = Subject(corpus=ours, against=real, encoder=GivenVectors("none", np.ones((150, 2), dtype=np.float32)))
    assert tell_words(subject)[0][0] == "furthermore"


# --- ten damaged pools --------------------------------------------------------------------------------
def damaged_pools():
    real, pool = read("gptaug_stackoverflow", "train", 1200), read("gptaug_stackoverflow", "synthetic", 600)
    test = read("gptaug_stackoverflow", "test", 600)
    tweets, tweeted = read("workergpt_sentiment", "train", 500), read("workergpt_sentiment", "synthetic", 600)
    label, plenty = "cocoa", read("gptaug_stackoverflow", "synthetic", 20_000)
    own = [r for r in plenty if r["label"] == label]
    few = [r for r in own if r["origin"] in sorted({r["origin"] for r in own})[:3]]
    wanted = sum(r["label"] == label for r in pool)
    narrowed = [r for r in pool if r["label"] != label] + few[:wanted]
    banking = [r | {"label": "x"} for r in read("gptaug_banking", "synthetic", 600)]
    questions = [r | {"label": "x"} for r in read("clinc_banking15", "train", 1500)]
    return {
        "repeats": (pool[:450] + pool[:150], real),
        "openings": (spoil(pool, 3, text(lambda t, _: f"In the context of software, {t}")), real),
        "labels": (spoil(pool, 4, wrong_label(pool)), real),
        "narrow-label": (narrowed, real),
        "shift": (banking, questions),
        "leaks": (spoil(pool, 8, text(lambda _, i: test[i]["text"].upper())), real),
        "truncated": (spoil(tweeted, 4, text(cut)), tweets),
        "prompt-echo": (spoil(pool, 5, text(lambda t, _: f"{PROMPT} {t}")), real),
        "wrong-language": (spoil(pool, 6, text(lambda t, i: f"{GERMAN[i // 6 % 5]} {t.split()[-1]}")), real),
        "broken-characters": (spoil(pool, 5, text(mangle)), real),
    }, [r["text"] for r in test]


@pytest.mark.slow
def test_the_damage_of_each_of_ten_pools_is_its_first_or_second_finding():
    pools, test = damaged_pools()
    encoder = KnownVectors(
        load_encoder(), [r["text"] for sides in pools.values() for side in sides for r in side] + test
    )
    for damage, (rows, real) in pools.items():
        more = {"held_out": test} if damage == "leaks" else {"prompts": [PROMPT]} if damage == "prompt-echo" else {}
        found = measure_corpus(corpus(rows), against=corpus(real), encoder=encoder, permutations=100, **more).findings
        assert damage in [f.id for f in found[:2]], (damage, [str(f) for f in found])
        assert len(found) <= 7 and [f.severity for f in found] == sorted((f.severity for f in found), reverse=True)


@pytest.mark.parametrize("language", ["hi", "zh", "ar", "th"])
def test_no_script_is_a_fault(language):
    """Sentences that say different things, in scripts without case, without spaces, from right to left."""
    subjects, verbs, things = {
        "hi": ("किसान लड़की डाकिया रसोइया", "ने देखा|को मिला|ने बेचा|ने बनाया|ने छिपाया", "चावल नाव पुल दीपक घोड़ा मकान"),
        "zh": ("农民 女孩 邮差 厨师", "看见了|找到了|卖掉了|做好了|藏起了", "大米 小船 石桥 油灯 白马 房子"),
        "ar": ("الفلاح الفتاة الساعي الطباخ", "رأى|وجد|باع|صنع|أخفى", "الأرز القارب الجسر المصباح الحصان البيت"),
        "th": ("ชาวนา เด็กหญิง บุรุษไปรษณีย์ พ่อครัว", "เห็น|พบ|ขาย|ทำ|ซ่อน", "ข้าว เรือ สะพาน ตะเกียง ม้า บ้าน"),
    }[language]  # fmt: skip
    space = "" if language in ("zh", "th") else " "
    texts = [space.join(parts) for parts in product(subjects.split(), verbs.split("|"), things.split())]
    random.Random(0).shuffle(texts)
    real, made = (corpus([{"text": text} for text in part]) for part in (texts[:60], texts[60:]))
    found = measure_corpus(made, against=real, encoder=HashingEncoder(), permutations=40).findings
    assert [each.id for each in found if each.severity] == []
    alone = measure_corpus(made, encoder=HashingEncoder()).findings
    assert {each.id for each in alone if each.severity} <= {"openings", "endings", "sequences"}  # four subjects
