"""Duplicates, degenerate texts and leaks on crafted rows, and on real paraphrases where they are at hand."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import first_same, split_tokens
from cuvee.defects import LeakFinder, SetLeakFinder
from cuvee.defects.degenerate import degenerate_reasons
from cuvee.defects.leaks import Leak
from cuvee.encoders import load_encoder
from cuvee.similarity import unit_rows

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
BANKING = SHARED / "gptaug_banking"


def read_texts(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


@pytest.fixture(scope="module")
def banking():
    if not BANKING.exists():
        pytest.skip("shared data gptaug_banking is not beside the checkout")
    names = ("synthetic.jsonl.gz", "test.jsonl", "train.jsonl")
    return tuple(read_texts(BANKING / name) for name in names)


def test_duplicates_are_the_repeats_after_the_first():
    texts = ["A cat.", "a  CAT", "a dog", "a cat!", "A dog:", "a-dog"]
    assert (first_same(texts) != range(6)).tolist() == [False, True, False, True, True, False]
    assert first_same([]).shape == (0,)


def test_unspaced_scripts_have_a_token_a_character():
    assert split_tokens("Straße, 10% off") == ["strasse", "10", "off"]
    assert split_tokens("明天 rain") == ["明", "天", "rain"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("...!?", "empty"),
        ("a", "too short"),
        ("Budget row <|im_end|>", "chat template"),
        ("[INST] write a headline [/INST]", "chat template"),
        ("### Response: rates rise", "chat template"),
        ("Assistant: rates rise", "chat template"),
        ("I'm sorry, but I can't assist with that request.", "refusal"),
        ("As an AI language model, I do not have opinions", "refusal"),
        ("I cannot fulfill this request", "refusal"),
        ("Sure! Here are five headlines about sport:", "chatter"),
        ("Here's a paraphrase of your sentence", "chatter"),
        ("ERROR: the model is overloaded", "error message"),
        ("Error: 429 Too Many Requests", "error message"),
        ("API Error: invalid key", "error message"),
        ("503 Service Unavailable", "error message"),
        ("Rate limit exceeded, please retry after 20s", "error message"),
        ('{"error": {"message": "model not found"}}', "error message"),
        ('Traceback (most recent call last):\n  File "a.py", line 3', "error message"),
        ("openai.BadRequestError: maximum length", "error message"),
        ("Connection refused", "error message"),
        ("null", "error message"),
        ("Bank raises \ufffd rates", "broken characters"),
        ("aaaaaaaaaaaaaaaaaaaa", "repetition"),
        ("rates " * 9, "repetition"),
        ("the rates rise " * 5, "repetition"),
        ("one two three four five six " * 12, "repetition"),
    ],
)
def test_degenerate_texts_are_named(text, reason):
    assert degenerate_reasons([text]) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "Rates rise as bank acts",
        "I'm sorry I can't help but laugh at this",
        "I can't create a new project in the editor",
        "Sorry, my card cannot be used abroad, why?",
        "Here is where I live",
        "Is the AI model any good?",
        "no no no, not again",
        "Why is 1.1 + 1.1 + 1.1 > 3.3?",
        "soooo good!!!!!!!!",
        "10% off",
        "There is an error: my card was declined",
        "the terminal says error 503 when I pay",
        "My rate limit is too low, can you raise it?",
        "error",
        "How many requests are too many requests?",
        "明天",
    ],
)
def test_ordinary_texts_pass(text):
    assert degenerate_reasons([text]) == [None]


def test_min_letters_alone_is_the_old_call():
    assert degenerate_reasons(["ya", "yes"], min_letters=2) == [None, None]
    assert degenerate_reasons(["ya", "yes"], min_letters=4) == ["too short", "too short"]


def test_a_row_that_repeats_the_prompt_is_an_echo():
    prompt = "Write one short question that a customer of a bank could ask, about the topic given below."
    texts = [
        prompt,
        "Sure. Write one short question that a customer of a bank might ask",
        "one short question that a customer might ask",
        "List of topics: cards",
        "where is my card",
    ]
    found = degenerate_reasons(texts, prompts=[prompt, "list of topics: cards", "my card"])
    assert found == ["prompt echo", "prompt echo", None, "prompt echo", None]
    assert degenerate_reasons(texts) == [None] * 5


ENDED = [f"The {noun} of town {i} was closed by the council." for i in range(15) for noun in
         "bank shop school church station hotel bridge".split()]  # fmt: skip
LOOSE = [text.removesuffix(".") for text in ENDED]


@pytest.mark.parametrize("text", ["The bank of town 3 was closed by the", "The bank (of", "A bank, a shop and"])
def test_texts_that_stop_short_are_truncated_where_real_rows_do_not(text):
    assert degenerate_reasons([text, text + " council."], reference=ENDED) == ["truncated", None]
    assert degenerate_reasons([text], reference=ENDED[:20]) == ["truncated"]
    assert degenerate_reasons([text], reference=LOOSE) == [None]
    assert degenerate_reasons([text]) == [None]


def test_a_missing_full_stop_is_a_cut_only_where_hundreds_of_real_rows_have_one():
    text = "The bank was closed by the council"
    many = [f"{i} {row}" for row in ENDED for i in range(3)]
    assert degenerate_reasons([text], reference=many) == ["truncated"]
    assert degenerate_reasons([text], reference=ENDED) == [None]  # 105 rows: too few to be sure
    assert degenerate_reasons([text], reference=many[:-12] + LOOSE[:12]) == [None]  # one in 26 has none
    assert degenerate_reasons([f'{text}?!"', f"{text}…", f"{text}。"], reference=many) == [None] * 3


FOREIGN = [
    "ich habe meine Karte verloren und brauche bitte eine neue",
    "warum wurde mein Konto gestern ohne jede Nachricht gesperrt",
    "wie lange dauert es bis die Überweisung endlich ankommt",
    "können Sie mir sagen wie hoch die Gebühren im Ausland sind",
    "das Wetter wird morgen in ganz Deutschland wieder deutlich besser",
    "die Mannschaft verlor das letzte Spiel der Saison mit drei Toren",
    "mein neues Telefon funktioniert leider nicht mehr mit dieser App",
    "wann öffnet die Filiale in der Nähe des Bahnhofs am Samstag",
    "j'ai perdu ma carte hier soir et je voudrais la bloquer",
    "pourquoi mon virement n'est pas encore arrivé sur mon compte",
    "combien de temps faut-il pour recevoir une nouvelle carte bancaire",
    "est-ce que je peux retirer de l'argent à l'étranger sans frais",
    "il fera très beau demain dans le sud de la France",
    "le directeur de la banque a démissionné après le scandale",
    "quels sont les documents nécessaires pour ouvrir un compte chez vous",
    "je ne comprends pas pourquoi ma demande a été refusée",
    "he perdido mi tarjeta y necesito una nueva lo antes posible",
    "por qué mi transferencia todavía no ha llegado a mi cuenta",
    "cuánto tiempo tarda en llegar el dinero desde otro banco",
    "puedo sacar dinero en el extranjero sin pagar una comisión",
    "mañana hará mucho calor en todo el sur de España",
    "el equipo perdió el último partido de la temporada por tres goles",
    "no entiendo por qué han rechazado mi pago con la tarjeta",
    "qué documentos necesito para abrir una cuenta en este banco",
]  # fmt: skip


def test_foreign_rows_are_found_by_the_language_of_the_reference():
    english = [f"{row} Please tell me what to do now" for row in LOOSE[:40]]
    found = degenerate_reasons(FOREIGN, reference=english)
    assert found.count("wrong language") > 0.9 * len(FOREIGN)
    assert degenerate_reasons(FOREIGN) == [None] * len(FOREIGN)
    german = [f"{row} {i}" for row in FOREIGN[:8] for i in range(4)]
    assert degenerate_reasons(FOREIGN[:8], reference=german) == [None] * 8
    assert degenerate_reasons(["please tell me why my card was not accepted abroad"], reference=german) == [
        "wrong language"
    ]
    assert "wrong language" not in degenerate_reasons(FOREIGN, reference=[*english, *FOREIGN, *german])
    assert degenerate_reasons(["guten Tag", "merci beaucoup"], reference=english) == [None, None]


LONG = "my card was charged twice for the same hotel booking last week"


def find_leaks(texts, held_out, *, vectors=None, **given):
    return LeakFinder(held_out, **given).find(texts, vectors)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("My card was charged TWICE for the same hotel booking, last week!", "exact"),
        ("last week my card was charged twice for the same hotel booking", "reordered"),
        ("hello, " + LONG + " and nobody answers me", "overlap"),
        ("card was charged twice for the same hotel booking", "overlap"),
    ],
)
def test_each_lexical_rule_finds_its_leak(text, reason):
    leaks = find_leaks(["something else", text], ["nothing alike here", LONG])
    (leak,) = leaks.found
    assert (leak.row, leak.held_out, leak.reason) == (1, 1, reason)
    assert leak.score >= 0.8
    assert leaks.mask.tolist() == [False, True]
    assert leaks.rate == 0.5


@pytest.mark.parametrize(
    "text",
    ["my card was charged twice", "a hotel charged my card twice for one booking last week", "week last my", "card"],
)
def test_shared_words_alone_are_no_leak(text):
    assert find_leaks([text], [LONG, "my card"]).found == ()


def test_nearest_neighbours_leak_only_beyond_the_real_baseline():
    rng = np.random.default_rng(0)
    held_out = unit_rows(rng.normal(size=(30, 64)).astype(np.float32))

    def near(cosine, count):
        noise = rng.normal(size=(count, 64))
        noise -= (noise * held_out[:count]).sum(axis=1, keepdims=True) * held_out[:count]
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        return unit_rows((cosine * held_out[:count] + np.sqrt(1 - cosine**2) * noise).astype(np.float32))

    words = [f"held {i}" for i in range(30)]
    rows = np.vstack([near(0.999, 3), near(0.97, 3), near(0.5, 3)])
    texts = [f"row {i}" for i in range(9)]
    alone = find_leaks(texts, words, vectors=rows, held_out_vectors=held_out)
    assert alone.threshold == 0.95
    assert alone.baseline is None
    assert [leak.row for leak in alone.found] == [0, 1, 2, 3, 4, 5]
    assert {leak.reason for leak in alone.found} == {"nearest"}
    guarded = find_leaks(
        texts, words, reference=[f"real {i}" for i in range(20)],
        vectors=rows, held_out_vectors=held_out, reference_vectors=near(0.98, 20),
    )  # fmt: skip
    assert guarded.threshold == pytest.approx(0.98, abs=1e-4)
    assert [(leak.row, leak.held_out) for leak in guarded.found] == [(0, 0), (1, 1), (2, 2)]


def test_a_real_row_that_leaks_itself_does_not_blind_the_guard():
    vectors = unit_rows(np.eye(3, dtype=np.float32))
    reference = ["same text", "other"]
    leaks = find_leaks(
        ["row"], ["same text"], reference=reference, vectors=vectors[:1], held_out_vectors=vectors[:1],
        reference_vectors=vectors[[0, 1]],
    )  # fmt: skip
    assert leaks.threshold == 0.95
    assert leaks.baseline == 0.5
    assert leaks.found == (Leak(row=0, held_out=0, reason="nearest", score=1.0),)


def test_empty_sides_have_no_leaks():
    assert find_leaks([], ["a b"]).rate == 0.0
    assert find_leaks(["a b"], []).found == ()


def test_the_paraphrases_of_banking_hold_test_rows(banking):
    synthetic, test, train = banking
    leaks = find_leaks(synthetic, test, reference=train)
    reasons = Counter(leak.reason for leak in leaks.found)
    assert (reasons["exact"], reasons["reordered"]) == (12, 3)  # three lack a question mark
    assert 10 <= reasons["overlap"] <= 40
    assert 0 < leaks.baseline < 0.05


def load_paraphrased(encoder, queries):
    """Real queries and ten paraphrases of each, as vectors, with the query that each paraphrase came from."""
    if not BANKING.exists():
        pytest.skip("shared data gptaug_banking is not beside the checkout")
    with gzip.open(BANKING / "synthetic.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    source = np.array([int(row["origin"]) - 100_000_001 for row in rows])
    kept = np.flatnonzero(source < queries)
    encode = load_encoder(encoder).encode
    real = unit_rows(encode(read_texts(BANKING / "train.jsonl")[:queries]))
    return real, unit_rows(encode([rows[i]["text"] for i in kept])), source[kept]


@pytest.fixture(scope="module")
def paraphrased():
    return load_paraphrased("hashing", 500)


def detect_set_leak(batches, held_out, reference, **settings):
    finder = SetLeakFinder(held_out, reference, **settings)
    for batch in batches:
        finder.add(batch)
    return finder.find()


def detect_both(real, written, source, seed, planted):
    """The set test of all rows that ``planted`` names, and of the paraphrases of training rows alone."""
    train, held_out = np.split(np.random.default_rng(seed).permutation(len(real)), [len(real) // 2])
    rows = written if planted == "all" else written[np.isin(source, held_out)]
    inside = written[np.isin(source, train)]
    found = [detect_set_leak([part], real[held_out], real[train], seed=seed) for part in (rows, inside)]
    row, held = found[0].examples[0]
    assert (rows[row] @ real[held_out].T).argmax() == held
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_pool_written_from_held_out_rows_raises_the_alarm_and_a_clean_one_does_not(paraphrased, seed):
    planted, clean = detect_both(*paraphrased, seed, "held-out")
    assert planted.alarm and planted.rate > 1.2 * planted.baseline
    assert not clean.alarm


@pytest.mark.slow
def test_a_pool_written_before_the_split_raises_the_alarm():
    paraphrases = load_paraphrased("minilm", 300)
    for seed in range(3):
        planted, clean = detect_both(*paraphrases, seed, "all")
        assert planted.alarm and planted.rate > 2 * planted.baseline
        assert not clean.alarm


def test_fresh_rows_of_the_same_kind_raise_the_alarm_no_more_often_than_promised():
    alarms = 0
    for seed in range(60):
        rows = unit_rows(np.random.default_rng(seed).standard_normal((330, 12)).astype(np.float32))
        found = detect_set_leak([rows[:150]], rows[150:270], rows[270:], seed=seed, permutations=199)
        alarms += found.alarm
    assert alarms <= 3  # of 60 at a level of 1%: more has a chance of 0.3%


def test_the_alarm_is_deterministic_whatever_the_batches_and_says_nothing_of_few_rows(paraphrased):
    real, written, _ = paraphrased
    whole = detect_set_leak([written], real[:140], real[140:], permutations=99)
    parts = detect_set_leak(np.array_split(written, 7), real[:140], real[140:], permutations=99)
    assert whole == parts
    assert detect_set_leak([], real[:140], real[140:]) is None
    assert detect_set_leak([written], real[:5], real[5:10]) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cutting knowledge date: december 2023 today date: 26 jul 2024 my card was declined", "chat template"),
        ("System\n\nToday Date: 26 July 2024\n\nwhy was my card declined", "chat template"),
        ("here are new texts that fit the 'lost card' category: where is my card", "chatter"),
        ("Here is a tweet with a negative tone: I hate mondays", "chatter"),
        ("here is the text of my complaint. It was late", None),
        ("what is today's date: I forgot", None),
    ],
)
def test_headers_of_templates_and_announcements_are_no_rows(text, reason):
    assert degenerate_reasons([text]) == [reason]


def test_an_opening_of_the_pool_that_no_real_row_has_is_chatter():
    real = [f"question number {i} about cards" for i in range(30)]
    announced = [f"My answer for label {i}: where is card {i}" for i in range(6)]
    plain = [f"where is card {i}" for i in range(100)]
    found = degenerate_reasons([*announced, *plain], reference=real)
    assert found == ["chatter"] * 6 + [None] * 100
    assert not any(degenerate_reasons([*announced[:4], *plain], reference=real))  # too few to be a habit
    assert not any(degenerate_reasons([*announced, *plain], reference=[*real, "My answer for you: no"]))
    assert not any(degenerate_reasons([*announced, *plain]))  # nothing says how people open


SHELLS = {
    "markup": ["<p>where is it</p>", '{"text": "where is it"}', "**Text**: where is it", "3) where is it"],
    "placeholder": ["dear {customer_name}, it is blocked", "[your question]", "Example 12:", "my [card type] is lost"],
}


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in SHELLS.items() for text in texts])
def test_the_shell_of_a_text_is_a_fault_where_no_real_row_has_it(reason, text):
    real = [f"where is card number{i}" for i in range(250)]
    assert degenerate_reasons([text, real[0]], reference=real) == [reason, None]
    assert degenerate_reasons([text], reference=[*real, text]) == [None]  # people write so here
    assert degenerate_reasons([text]) == [None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I apologize, but I cannot create content of that kind.", "refusal"),
        ("I'm unable to log in to my account", None),
        ("I cannot generate a statement in the app", None),
        ("The following are ten messages:", "chatter"),
        ("Let me know if you would like any more variations!", "chatter"),
        ("let me know if you need anything else from the shop", None),
        ("Okay, so the user wants a short message.", "chatter"),
        ("You are a helpful assistant. where is it", "chat template"),
        ("you are a helpful person, thank you", None),
        ("Human: one more\nAI: where is it", "chat template"),
        ("hahaha" * 14, "repetition"),
        ("@user " * 12 + "good morning", None),
    ],
)
def test_junk_of_each_family_goes_and_what_resembles_it_stays(text, reason):
    assert degenerate_reasons([text]) == [reason]


def test_real_texts_are_hardly_ever_called_degenerate(banking):
    assert sum(r is not None for texts in banking for r in degenerate_reasons(texts)) == 0


def shared_split(name, split):
    found = [SHARED / name / f"{split}{ending}" for ending in (".jsonl", ".jsonl.gz")]
    path = next((p for p in found if p.exists()), None)
    if path is None:
        pytest.skip(f"shared data {name} is not beside the checkout")
    return read_texts(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "reordered"),
    [("banking77", 8, 34), ("snips", 18, 3), ("clinc150", 19, 34), ("goemotions", 187, 8)],
)
def test_the_known_overlaps_of_train_and_test_are_found(name, rows, reordered):
    leaks = find_leaks(shared_split(name, "train"), shared_split(name, "test"))
    reasons = Counter(leak.reason for leak in leaks.found)
    assert (reasons["exact"], reasons["reordered"]) == (rows, reordered)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["banking77", "snips", "clinc150", "sms_spam", "goemotions"])
@pytest.mark.parametrize("rows", [50, None])
def test_few_real_texts_are_called_degenerate_beside_their_own_kind(name, rows):
    train, test = shared_split(name, "train"), shared_split(name, "test")
    found = [reason for reason in degenerate_reasons(test, reference=train[:rows]) if reason is not None]
    assert len(found) < 0.005 * len(test), Counter(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["banking77", "snips", "clinc150", "sms_spam"])
def test_foreign_sentences_are_found_beside_real_english(name):
    found = degenerate_reasons(FOREIGN, reference=shared_split(name, "train"))
    assert sum(reason == "wrong language" for reason in found) > 0.9 * len(FOREIGN)


@pytest.mark.slow
def test_one_leak_is_found_among_thousands_of_rows_with_a_common_opening():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3000)])

    def corpus():
        return ["i would like to know if " + " ".join(words[rng.integers(0, 3000, size=10)]) for _ in range(5000)]

    texts, held_out = corpus(), corpus()
    texts[77] = held_out[88] + " please"
    leaks = find_leaks(texts, held_out)
    assert [(leak.row, leak.held_out) for leak in leaks.found] == [(77, 88)]


def test_leaks_by_a_real_encoder():
    encoder = load_encoder("hashing")
    texts = ["Weather in Paris", "unblock my international creditcards please"]
    held_out = ["unblock my international creditcard please", "Where is my card"]
    leaks = find_leaks(texts, held_out, vectors=encoder.encode(texts), held_out_vectors=encoder.encode(held_out))
    assert [(leak.row, leak.held_out, leak.reason) for leak in leaks.found] == [(1, 0, "nearest")]


def test_leaks_are_found_in_whatever_part_of_many_rows_they_stand():
    held_out = ["the cat sat on the mat with a hat", "one two three four five six seven eight nine ten"]
    texts = [f"row {n}" for n in range(1300)]
    texts[600], texts[1100] = "The cat sat on the mat, with a HAT", "hat a with mat the on sat cat the"
    texts[1299] = "one two three four five six seven eight nine eleven"
    found = {leak.row: (leak.held_out, leak.reason) for leak in find_leaks(texts, held_out).found}
    assert found == {600: (0, "exact"), 1100: (0, "reordered"), 1299: (1, "overlap")}


def test_equal_words_of_many_texts_are_one_string():
    first, second = split_tokens("Cold water"), split_tokens("cold Ünwater, WATER!")
    assert first == ["cold", "water"] and second == ["cold", "ünwater", "water"]
    assert first[0] is second[0] and first[1] is second[2]
