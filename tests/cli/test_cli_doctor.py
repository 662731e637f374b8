import json

from aiohttp import web

from command_line import call
from local_llm import LocalLLM


def test_the_doctor_asks_the_endpoint_once_and_lists_what_is_installed(capsys):
    server = LocalLLM()
    try:
        url = f"http://127.0.0.1:{server.port}/v1"
        code, out, _ = call(capsys, "doctor", "--base-url", url, "--model", "tiny", "--json")
        found = json.loads(out)
        assert code == 0 and found["ok"] and found["LLM"].startswith("answers within")
        assert [len(body["messages"]) for body in server.bodies] == [1]
        assert found["extra demo"] == "installed" and "GiB free" in found["disk"]
        server.script = refuse
        code, out, _ = call(capsys, "doctor", "--base-url", url, "--model", "tiny")
        assert code == 1 and "does not answer" in out and "wrong key" in out
    finally:
        server.close()


async def refuse(_number, _request, _body):
    return web.json_response({"error": {"message": "wrong key"}}, status=401)
