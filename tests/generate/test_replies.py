"""From the bytes of a reply to the text that answers: what endpoints and models of many kinds send back."""

import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from command_line import call
from cuvee.generate.calls import Answer
from cuvee.generate.parsing import REMEDIES, Demands, parse_answer
from cuvee.generate.replies import Reply, error_status, how_ended, parse_reply, read_body, read_message, strip_thoughts

TEXT = "Where can I see the card's number?"


def reply(message, finish="stop", **more):
    return Reply(200, json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}))


def parse(text, finish="stop", **demands):
    return parse_answer(Answer(text=text, finish_reason=finish), Demands(**demands), label="card")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": TEXT}, TEXT),
        ({"content": [{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}]}, TEXT),
        ({"content": [{"type": "thinking", "thinking": [{"text": "so"}]}, {"type": "text", "text": TEXT}]}, TEXT),
        ({"content": None, "reasoning_content": "Let me think"}, ""),
        ({"content": TEXT, "reasoning_content": "Let me think"}, TEXT),
        (TEXT, TEXT),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
    ],
)
def test_contents_of_a_message(message, text):
    assert parse_reply(reply(message)).text == text


def test_a_reply_in_pieces_is_put_together():
    events = [
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "Where is"}}]},
        {"choices": [{"delta": {"content": " it?"}, "finish_reason": "length"}]},
        {"object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": "3"}},
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    assert parse_reply(Reply(200, body)) == Answer(
        text="Where is it?", finish_reason="length", prompt_tokens=8, completion_tokens=3
    )


def test_bodies_that_are_nearly_json():
    whole = reply({"content": f"{TEXT} Café"}).body
    assert read_body(b"\xef\xbb\xbf" + whole.encode(), None) == whole
    assert read_body("Café".encode("latin-1"), "iso-8859-1") == "Café"
    assert read_body("Café".encode("latin-1"), "no such set") == "Caf\ufffd"
    assert parse_reply(Reply(200, whole.replace("Where", "Where\n\t"))).text == f"Where\n\t{TEXT[5:]} Café"
    assert read_message(Reply(400, '[{"error": {"message": "Unknown name"}}]')) == "Unknown name"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": "the model is still loading"}, 503),
        ({"error": {"message": "no", "code": "server_error"}}, 503),
        ({"error": {"message": "slow down", "code": 429}}, 429),
        ({"error": {"message": "no such thing"}}, 400),
        ({"error": None, "choices": [{"text": "fine"}]}, 200),
        ({"choices": [{"text": 'an "error" in a text'}]}, 200),
    ],
)
def test_errors_that_come_with_status_200(body, status):
    assert error_status(Reply(200, json.dumps(body))) == status


@pytest.mark.parametrize(
    ("spelled", "end"),
    [
        ("", "whole"),
        ("STOP", "whole"),
        ("end_turn", "whole"),
        ("COMPLETE", "whole"),
        ("FINISH_REASON_STOP", "whole"),
        ("length", "cut"),
        ("MAX_TOKENS", "cut"),
        ("FinishReason.MAX_TOKENS", "cut"),
        ("content_filter", "filtered"),
        ("SAFETY", "filtered"),
        ("tool_calls", "tool"),
        ("refusal", "refused"),
        ("abort", "failed"),
        ("never seen", "failed"),
    ],
)
def test_every_spelling_of_an_end(spelled, end):
    assert how_ended(spelled) == end


@pytest.mark.parametrize(
    "answer",
    [
        f"<think>\nThe user wants one.\n</think>\n\n{TEXT}",
        f"The user wants one.\nMaybe a card.\n</think>\n{TEXT}",
        f"<thinking>one</thinking>{TEXT}",
        f"[THINK]The user wants one.[/THINK]{TEXT}",
        f"{TEXT}<|im_end|>\n</s>",
        f"<|channel|>analysis<|message|>One<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}<|return|>",
        f"<|channel|>commentary to=x<|message|>so<|end|><|channel|>final<|message|>{TEXT}",
        f"analysisWe need one.assistantfinal{TEXT}",
        f"<|channel>thought\nWe need one\n<channel|>{TEXT}",
        f"```\n{TEXT}\n```",
        f"Here is one:\n```text\n{TEXT}\n```",
        json.dumps({"text": TEXT}),
        json.dumps({"label": "card", "text": TEXT}),
        json.dumps({"question": TEXT}),
        f"```json\n{json.dumps({'Text': TEXT})}\n```",
        f'1. "{TEXT}"',
        f"<seed:think>The user wants one.</seed:think>\ufeff{TEXT}",
        f"◁think▷The user wants one.◁/think▷{TEXT}",
        f"<|begin_of_thought|>\nOne.\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{TEXT}\n<|end_of_solution|>",
        f"Here is my thought process:\nOne.\nHere is my response:\n{TEXT}",
        f"<think>one</think>\n<answer>\n{TEXT}\n</answer>",
        f"{TEXT}<｜end▁of▁sentence｜>",
        json.dumps([TEXT]),
        json.dumps([{"text": TEXT}], indent=1),
        f"**Label:** card\n**Text:** {TEXT}",
    ],
)
def test_wrappings_are_taken_off(answer):
    assert parse(answer).text == TEXT
    assert parse(answer).reason is None


@pytest.mark.parametrize(
    ("answer", "finish", "reason"),
    [
        ("<think>\nOkay, the user wants", "length", "still thinking"),
        ("", "length", "still thinking"),
        ("<|channel|>analysis<|message|>We need", "max_tokens", "still thinking"),
        (f"{TEXT} And the", "MAX_TOKENS", "truncated"),
        (TEXT, "content_filter", "withheld by the endpoint's filter"),
        ("I'm sorry, I cannot help.", "refusal", "refused"),
        ("", "tool_calls", "a tool call"),
        ('<tool_call>\n{"name": "write"}\n</tool_call>', "stop", "a tool call"),
        (TEXT, "abort", "not finished"),
        ('{"a": "Where is it?", "b": "Here it is"}', "stop", "malformed"),
        ("<think>all of it</think>", "stop", "empty"),
    ],
)
def test_what_is_no_answer_has_its_own_reason_and_remedy(answer, finish, reason):
    assert parse(answer, finish).reason == reason
    assert reason in REMEDIES


def test_real_rows_that_look_wrapped_keep_answers_that_do():
    assert parse('{"a": "x y", "b": "z"}', shown=['{"a": "u v", "b": "w"}']).reason is None


def test_paragraphs_stay_where_real_rows_have_them():
    mail = "Dear team,\n\nthe parcel never came.\nPlease send it again.\n\nKind regards"
    assert parse(mail).text == "Dear team,"
    assert parse(f'"{mail}"', lines=True).text == mail
    assert parse(f"Sure, here is one:\n\n{mail}\n", lines=True).text == mail
    steps = "1. Open the app.\n2. Choose the card."
    assert parse(steps, lines=True).text == steps


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_body_breaks_the_reading(body):
    text = read_body(body, "utf-16")
    found = Reply(200, text)
    parse_reply(found), error_status(found), read_message(found)
    parse_answer(Answer(text=strip_thoughts(text), finish_reason=text[:9]), Demands(lines=True), label="card")


# --- the command line against a server with the quirks of real ones ---
REAL = [
    {"text": f"{word} is the word for {kind} of the day", "label": kind}
    for kind in ("fruit", "tool")
    for word in ("amber", "birch", "cedar", "delta", "ember")
]


@pytest.fixture
def generate(llm, tmp_path, capsys):
    """``generate(*options)``: the exit code, what is said on stderr as one line, and the texts that were made."""

    def run(*options, rows=REAL):
        real, made = tmp_path / "real.jsonl", tmp_path / "made.jsonl"
        real.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = ("--base-url", f"http://127.0.0.1:{llm.port}/v1", "--model", "mine", "--rows", 2, "--out", made)
        code, _, err = call(capsys, "generate", real, *given, *options)
        assert "Traceback" not in err
        texts = [json.loads(line)["text"] for line in made.read_text().splitlines()] if made.exists() else []
        return code, " ".join(err.split()), texts

    return run


def refuse_unless(test, message, status=400):
    async def script(_number, _request, body):
        return None if test(body) else web.json_response({"error": {"message": message}}, status=status)

    return script


def test_the_list_of_models_ends_no_run(llm, generate):
    llm.models = ["models/another", "and-another"]
    code, _, texts = generate()
    assert (code, len(texts)) == (0, 4)
    llm.script = refuse_unless(lambda _: False, "model 'mine' not found", 404)
    code, said, _ = generate("--seed", "1")
    assert code == 2
    assert "does not serve model 'mine'; it serves: models/another" in said


TEMPERATURE = "Unsupported value: 'temperature' does not support 0.7 with this model."
BOTH = "`temperature` and `top_p` cannot both be specified for this model."
THINKING = "parameter.thinking must be set to false"


@pytest.mark.parametrize(
    ("fits", "message", "hint", "options"),
    [
        (lambda body: "temperature" not in body, TEMPERATURE, "--omit temperature", ["--omit", "temperature"]),
        (lambda body: "top_p" not in body, BOTH, "--omit top_p", ["--omit", "top_p"]),
        (lambda body: body.get("thinking") is False, THINKING, "--extra NAME=VALUE", ["--extra", "thinking=false"]),
        (lambda body: len(body["messages"]) == 1, "System role not supported", "--system merge", ["--system", "merge"]),
    ],
)
def test_what_a_server_refuses_is_named_with_the_option_that_mends_it(llm, generate, fits, message, hint, options):
    llm.text = lambda body: f"never came {len(llm.bodies)} {json.dumps(body['seed'])}"
    llm.script = refuse_unless(fits, message)
    code, said, _ = generate()
    assert code == 2
    assert message in said
    assert hint in said
    code, _, texts = generate(*options)
    assert (code, len(texts)) == (0, 4)


def test_a_key_with_a_line_break_is_sent_without_it(llm, generate, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-abc\n")
    code, _, texts = generate("--api-key-env", "MY_KEY")
    assert (code, len(texts)) == (0, 4)
    assert llm.headers[0]["Authorization"] == "Bearer sk-abc"
    assert llm.endpoint(api_key="sk-abc\r\n").api_key == "sk-abc"


def test_a_used_up_quota_ends_at_once(llm, generate):
    llm.script = refuse_unless(lambda _: False, "You exceeded your current quota, please check your plan.", 429)
    code, said, _ = generate()
    assert code == 2
    assert "the quota is used up" in said
    assert len(llm.bodies) <= 4


def test_rows_with_paragraphs_are_shown_and_made_with_them(llm, generate):
    rows = [{**row, "text": f"Hello,\n\n{row['text']}\n\nBest, A"} for row in REAL]
    llm.text = lambda body: f"Dear all,\n\nnumber {body['seed']} never came.\n\nRegards"
    code, _, texts = generate(rows=rows)
    assert (code, len(texts)) == (0, 4)
    assert all(text.startswith("Dear all,\n\nnumber") and text.endswith("Regards") for text in texts)
    assert "Hello,\n\n" in llm.bodies[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--omit", "n"], "--omit: "),
        (["--extra", "thinking"], "give NAME=VALUE"),
        (["--extra", "thinking=False"], "its value is no JSON; write true, false"),
        (["--extra", "thinking={on"], "its value is no JSON"),
        (["--extra", "temperature=2"], "--extra: 'temperature' is in every request already"),
        (["--extra", "model=x"], "--extra: 'model' is in every request already"),
        (["--system", "drop"], "--system: "),
    ],
)
def test_wrong_options_of_the_endpoint(generate, options, expected):
    code, said, _ = generate(*options)
    assert code == 2
    assert expected in said


def test_a_key_that_no_header_holds_is_told_and_not_repeated(generate, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-one\nsk-two")
    code, said, _ = generate("--api-key-env", "A_KEY")
    assert code == 2 and "A_KEY holds a line break" in said and "sk-" not in said
