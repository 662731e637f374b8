import json

import pytest
from aiohttp import web

from cuvee.errors import EndpointError
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Request, Sampling, _determinants, request_key
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger

SCHEMA = json.dumps(
    {
        "title": "headline",
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "words": {"type": "integer"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
            "kind": {"type": ["string", "null"]},
        },
        "required": ["text"],
        "additionalProperties": False,
    }
)


def ask(n=1, sampling=None, **fields):
    sampling = sampling or Sampling()
    return [Request(prompt=f"question {i}", sampling=sampling, seed=i, **fields) for i in range(n)]


def test_the_schema_is_sent_and_is_part_of_the_key(llm):
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests([*ask(schema=SCHEMA), *ask()])
        assert tuple(client._ledger.met.notes) == ()
    sent = [body.get("response_format") for body in llm.bodies]
    assert sorted(map(bool, sent)) == [False, True]
    found = next(filter(None, sent))
    assert found == {
        "type": "json_schema", "json_schema": {"name": "headline", "schema": json.loads(SCHEMA), "strict": True}
    }  # fmt: skip
    other = json.dumps({"title": "other", "required": ["text"], "type": "object"})
    keys = {request_key(llm.endpoint(), ask(schema=s)[0]) for s in (None, SCHEMA, other)}
    assert len(keys) == 3


@pytest.mark.parametrize("fields", [{}, {"schema": SCHEMA, "sampling": Sampling(min_p=0.1, top_k=3, stop=("☃",))}])
def test_the_key_is_the_hash_of_all_determinants(llm, fields):
    endpoint, request = llm.endpoint(), ask(**fields)[0]
    assert request_key(endpoint, request) == hash_value(_determinants(endpoint, request))


@pytest.mark.parametrize(
    "message",
    [
        "response_format is not supported by this model",
        "Unknown field: response_format",
        "'json_schema' type unavailable",
        "This feature is unsupported",
    ],
)
def test_where_a_schema_is_refused_the_prompt_alone_asks_for_the_rest_of_the_run(llm, message, tmp_path):
    async def refuse(_number, _request, body):
        if "response_format" in body:
            return web.json_response({"error": {"message": message}}, status=400)
        return None

    llm.script = refuse
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, LLMClient(llm.endpoint(concurrency=2), ledger) as client:
        assert all(a.text for a in client.answer_requests(ask(6, schema=SCHEMA)))
        assert 1 <= sum("response_format" in body for body in llm.bodies) <= 2
        assert tuple(client._ledger.met.notes) == (
            f"structured output: response_format is refused, so the prompt alone asks for JSON (HTTP 400 {message})",
        )
        assert ledger.met.retries == 0
    sent = len(llm.bodies)
    with Ledger(path) as ledger, LLMClient(llm.endpoint(), ledger) as client:
        assert all(a.replayed for a in client.answer_requests(ask(6, schema=SCHEMA)))
    assert len(llm.bodies) == sent


def test_max_completion_tokens_takes_the_place_of_max_tokens_where_that_is_asked(llm):
    async def renamed(_number, _request, body):
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return web.json_response({"error": {"message": message}}, status=400)
        return None

    llm.script = renamed
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        assert all(a.text for a in client.answer_requests(ask(3)))
        assert tuple(client._ledger.met.notes) == ("max_tokens is refused: sent as max_completion_tokens",)
    assert llm.bodies[-1]["max_completion_tokens"] == 48


def test_min_p_and_top_k_are_sent_only_if_set(llm):
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests(ask())
        client.answer_requests(ask(sampling=Sampling(min_p=0.05, top_k=40)))
    assert not {"min_p", "top_k"} & set(llm.bodies[0])
    assert (llm.bodies[1]["min_p"], llm.bodies[1]["top_k"]) == (0.05, 40)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("min_p", "leave min_p out"),
        ("top_k", "leave top_k out"),
        ("seed", "--omit seed"),
        ("top_p", r"omit: \[top_p\]"),
        ("max_tokens", "change max_tokens"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_parameter_is_named_with_the_servers_words_and_what_to_do(llm, name, remedy, status):
    async def refuse(_number, _request, _body):
        return web.json_response({"error": {"message": f"Unsupported parameter: '{name}' here."}}, status=status)

    llm.script = refuse
    expected = rf"refuses '{name}': HTTP {status} Unsupported parameter: '{name}' here\.; .*{remedy}"
    requests = ask(sampling=Sampling(min_p=0.1, top_k=4), schema=SCHEMA)
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client, pytest.raises(EndpointError, match=expected):
        client.answer_requests(requests)
    assert len(llm.bodies) == 1


def test_omitted_parameters_are_not_sent_and_change_the_key(llm):
    endpoint = llm.endpoint(omit=("seed", "top_p"))
    assert request_key(endpoint, ask()[0]) != request_key(llm.endpoint(), ask()[0])
    assert len({request_key(endpoint, r) for r in ask(3)}) == 3
    llm.text = lambda body: " ".join(sorted(body))
    with Ledger() as ledger, LLMClient(endpoint, ledger) as client:
        client.answer_requests(ask())
    assert not {"seed", "top_p"} & set(llm.bodies[0])
    with pytest.raises(ValueError, match="omit 'n'; valid choices: 'temperature'"):
        llm.endpoint(omit=("n",))


@pytest.mark.parametrize(("name", "value"), [("min_p", 1.5), ("min_p", -0.1), ("top_k", -2)])
def test_sampling_is_checked(name, value):
    with pytest.raises(ValueError, match=name):
        Sampling(**{name: value})
