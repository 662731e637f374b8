"""What Ollama's OpenAI-compatible address takes and answers, by a stand-in: a server of its own is not at hand."""

import json

from aiohttp import web

from command_line import call, refused

TAKEN = {"model", "messages", "stream", "stream_options", "max_tokens", "seed", "stop", "temperature", "top_p",
         "frequency_penalty", "presence_penalty", "response_format", "tools", "reasoning"}  # fmt: skip


def serve(llm, **message):
    """Tags in the list of models, ``reasoning`` beside the content."""
    llm.models = ["smollm2:latest"]

    async def answer(_number, _request, body):
        if body["model"].partition(":")[0] != "smollm2":
            said = {
                "message": f"model '{body['model']}' not found",
                "type": "not_found_error",
                "param": None,
                "code": None,
            }
            return web.json_response({"error": said}, status=404)
        given = {"role": "assistant", "content": llm.text(body), **message.get("message", {})}
        choice = {"index": 0, "message": given, "finish_reason": message.get("finish", "stop")}
        return web.json_response(
            {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
             "system_fingerprint": "fp_ollama", "choices": [choice],
             "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}
        )  # fmt: skip

    llm.script = answer


def ask(llm, folder, model="smollm2", *more):
    path = folder / "real.jsonl"
    rows = [{"text": f"late goal number {i} wins the cup", "label": "ab"[i % 2]} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    url = f"http://127.0.0.1:{llm.port}/v1"
    return ("generate", path, "--base-url", url, "--model", model, "--rows", 2, "--out", folder / "x.jsonl", *more)


def test_a_model_without_its_tag_writes_rows(llm, tmp_path, capsys):
    serve(llm, message={"reasoning": "They want a headline."})
    code, _, err = call(capsys, *ask(llm, tmp_path))
    assert code == 0, err
    assert set(llm.bodies[0]) <= TAKEN
    written = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 4 and "headline" not in written


def test_thoughts_alone_are_told_from_an_empty_answer(llm, tmp_path, capsys):
    serve(llm, message={"content": "", "reasoning": "They want"}, finish="length")
    assert "the model was still thinking" in refused(capsys, *ask(llm, tmp_path))


def test_a_model_that_is_not_pulled_is_named(llm, tmp_path, capsys):
    serve(llm)
    assert "llama9" in refused(capsys, *ask(llm, tmp_path, "llama9"))
