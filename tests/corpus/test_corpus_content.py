"""Text identity and words, in languages and notations whose marks carry meaning."""

import unicodedata
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cuvee.corpus import Corpus, end_of_tokens, normalise_text, split_tokens
from cuvee.defects import LeakFinder
from cuvee.defects.degenerate import degenerate_reasons
from cuvee.encoders import HashingEncoder
from cuvee.measure import Subject
from cuvee.measure.measuring import METRICS

DIFFERENT = {
    "Hindi": ["कल वह आया", "कल वह आयी", "काल वह आया", "कल वह आये"],
    "Tamil": ["பல் வலி", "பால் வலி", "பால வலி", "பல வலி"],
    "Thai": ["เขามาใกล้", "เขามาไกล", "เขามาใกล", "เข้ามาใกล้"],
    "Arabic": ["كَتَبَ", "كُتِبَ", "كُتُب"],
    "Hebrew": ["שָׁלוֹם", "שִׁלּוּם", "שלום"],
    "Chinese": ["他买了", "他卖了", "他买了?", "我爱你", "你爱我"],
    "mathematics": [
        "3 + 4",
        "3 - 4",
        "3 × 4",
        "3 / 4",
        "3 ≤ 4",
        "3 < 4",
        "5!",
        "5",
        "x²",
        "x2",
        "x_1",
        "-2",
        "2",
        "¬p",
        "p",
        "2:3",
        "23",
    ],
    "code": [
        "C",
        "C++",
        "C#",
        "a.b",
        "a b",
        "f(x)",
        "f[x]",
        "x == y",
        "x != y",
        "&p",
        "*p",
        "!done",
        "done",
        "a,b",
        "ab",
    ],
    "emoji": ["fine 🙂", "fine 🙃", "fine", "👍🏻", "👍🏿", "🇫🇷", "🇩🇪", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"],
    "questions": ["You won", "You won?"],
}
SAME = [
    ("Straße", "STRASSE"), ("é", "e\u0301"), ("ÅNGSTRÖM", "a\u030angstro\u0308m"), ("Σας", "ΣΑΣ"),
    ("two  words\n", " two\u00a0words"), ("zero\u200bwidth", "zerowidth"), ("soft\u00adhyphen", "softhyphen"),
    ("“Yes,” he said.", '"yes" he said'), ("it’s", "it's"), ("Hello , world !", "hello world !"), ("Wow!!", "wow"),
    ("अच्छा!", "अच्छा"), ("❤\ufe0f", "❤"),
    ("One; two: three...", "one two three"), ('He said "go."', 'he said "go"'), ("क़", "क\u093c"),
]  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_differs_in_meaning_is_another_text(kind):
    for one, other in combinations(DIFFERENT[kind], 2):
        assert normalise_text(one) != normalise_text(other), (one, other)
        assert not [leak for leak in LeakFinder([other]).find([one]).found if leak.reason == "exact"]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_written_in_another_way_is_the_same_text(one, other):
    assert normalise_text(one) == normalise_text(other)


def test_other_signs_or_another_order_without_spaces_leak_nothing():
    assert not LeakFinder(["What is 9 * 3", "我爱你", "21 dogs"]).find(["What is 9 - 3", "你爱我", "12 dogs"]).found
    (leak,) = LeakFinder(["What do I get"]).find(["do I get what?"]).found
    assert leak.reason == "reordered"


@given(st.text())
@example("x!' .")
@example("\u0345\u0301.!")
def test_identity_is_a_fixed_point_and_blind_to_the_form_of_unicode(text):
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert (
        normalise_text(unicodedata.normalize("NFD", text)) == normalise_text(unicodedata.normalize("NFC", text)) == once
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("मेरा फ़ोन खो गया।", ["मेरा", "फ़ोन", "खो", "गया"]),
        ("நான் தமிழ் பேசுகிறேன்", ["நான்", "தமிழ்", "பேசுகிறேன்"]),
        ("ฉันรัก แมว", ["ฉั", "น", "รั", "ก", "แ", "ม", "ว"]),
        ("العَرَبِيَّة لغة", ["العَرَبِيَّة", "لغة"]),
        ("צה״ל ושלום", ["צה״ל", "ושלום"]),
        ("我喜欢3只猫。", ["我", "喜", "欢", "3", "只", "猫"]),
        ("カメラです", ["カ", "メ", "ラ", "で", "す"]),
        ("Don’t pay 3.50 for foo_bar", ["don't", "pay", "3.50", "for", "foo_bar"]),
        ("x² ≤ 4 (or so)", ["x", "²", "≤", "4", "or", "so"]),
        ("C++ and C", ["c", "+", "+", "and", "c"]),
        ("ok 👍🏽👍🏽 🇩🇪", ["ok", "👍🏽", "👍🏽", "🇩🇪"]),
    ],
)
def test_words_of_each_language(text, tokens):
    text = unicodedata.normalize("NFC", text)
    assert split_tokens(text) == [unicodedata.normalize("NFC", token) for token in tokens]
    assert split_tokens(text[: end_of_tokens(text, 2)]) == split_tokens(text)[:2]


def test_measures_and_rules_read_words_of_any_script():
    texts = [
        "यह दिन अच्छा है",
        "मुझे घर जाना है",
        "我今天很高兴",
        "他明天去北京",
        "ฉันรักแมวมาก",
        "السلام عليكم يا صديقي",
        "😀 👍🏽 🎉",
        "∀x ∃y x ≤ y²",
    ]
    subject = Subject(corpus=Corpus.from_rows({"text": t, "target": "a"} for t in texts), encoder=HashingEncoder())
    counts = [len(split_tokens(text)) for text in texts]
    assert counts == [4, 4, 6, 6, 10, 4, 3, 8]
    assert METRICS["mean_words"].compute(subject).value == sum(counts) / len(texts)
    different = {token for text in texts for token in split_tokens(text)}
    assert METRICS["distinct_1"].compute(subject).value == len(different) / sum(counts)
    assert METRICS["self_bleu"].compute(subject).value < 0.2
    assert degenerate_reasons(texts) == [None] * len(texts)
    assert degenerate_reasons(["很好 " * 20, "👍" * 30, "???"]) == ["repetition", "repetition", "empty"]


def test_long_texts_are_read_at_both_ends_and_what_is_left_out_is_said():
    long = " ".join(f"word{i}" for i in range(40_000))
    refusal = "I'm sorry, but I cannot help with that."
    assert degenerate_reasons([f"{refusal} {long}", f"{long}</s>", long, f"{long} \ufffd {long}"]) == [
        "refusal", "chat template", None, "broken characters",
    ]  # fmt: skip
    rows = [{"text": f"{row} {long} {long[:row]}", "target": "a"} for row in range(8)]
    subject = Subject(corpus=Corpus.from_rows(rows), encoder=HashingEncoder())
    found = METRICS["compression_ratio"].compute(subject)
    assert found.low is None and found.settings["no_interval"] == "above 2000000 bytes"
