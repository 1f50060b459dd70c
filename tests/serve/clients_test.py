"""hadal-serve as its clients meet it: every endpoint over a real socket, curl, the npm package openai, cancellation,
keys, and the end."""

import asyncio
import json
import os
import subprocess
import tempfile

from harness import ASSISTANT, BEGIN, FABLES, USER, Client, Server, ask, metrics, model_with_template, run, until

PROMPT = "Once upon a time"


def greedy(prompt=PROMPT, tokens=24, **more):
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "return_token_ids": True, **more}


async def completion(server, body, status=200, headers=()):
    response = await ask(server, "POST", "/v1/completions", body, headers)
    assert response.status == status, (response.status, response.body)
    return response.json()


def curl(*words, data=None):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *words], input=data, capture_output=True, check=True)
    return done.stdout.decode()


async def completions(server):
    whole = await completion(server, greedy())
    choice = whole["choices"][0]
    assert whole["object"] == "text_completion" and whole["model"] == "fables" and whole["id"].startswith("cmpl-")
    assert choice["finish_reason"] == "length" and len(choice["token_ids"]) == 24
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 24, "total_tokens": 29}
    # The same as ids, in a list, streamed, and by HTTP/1.0, which has no chunks.
    ids = (await ask(server, "POST", "/tokenize", {"prompt": PROMPT})).json()
    assert ids["count"] == 5 and ids["max_model_len"] == 2048
    assert (await ask(server, "POST", "/detokenize", {"tokens": ids["tokens"]})).json() == {"prompt": PROMPT}
    for prompt in ids["tokens"], [PROMPT], [ids["tokens"]]:
        assert (await completion(server, greedy(prompt)))["choices"] == whole["choices"]
    for options, usage in ((None, 0), ({"include_usage": True}, 1)):
        stream = await ask(server, "POST", "/v1/completions", greedy(stream=True, stream_options=options))
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = stream.events()
        assert len({e["id"] for e in events}) == 1
        if usage:
            last = events.pop()
            assert last["usage"] == whole["usage"] and last["choices"] == []
            assert all(e["usage"] is None for e in events)
        assert "".join(e["choices"][0]["text"] for e in events) == choice["text"]
        assert sum((e["choices"][0]["token_ids"] for e in events), []) == choice["token_ids"]
        assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + ["length"]
    old = await Client.connect(server)
    body = json.dumps(greedy(stream=True)).encode()
    old.send_bytes(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    status, headers = await old.read_head()
    text = await old.reader.read()
    assert status == 200 and "transfer-encoding" not in headers and text.endswith(b"data: [DONE]\n\n")
    await old.close()


async def choices_and_sampling(server):
    """n answers of several prompts; seeds; stop strings; biases; log-probabilities."""
    long = PROMPT + " there was a king who had a daughter" * 12  # more than a page
    plain = [(await completion(server, greedy(p)))["choices"][0] for p in (PROMPT, long)]
    both = await completion(server, greedy([PROMPT, long], n=3, echo=True))
    assert [c["index"] for c in both["choices"]] == list(range(6))
    for i, choice in enumerate(both["choices"]):
        assert choice["token_ids"] == plain[i // 3]["token_ids"]
        assert choice["text"] == (PROMPT, long)[i // 3] + plain[i // 3]["text"]
    assert both["usage"]["completion_tokens"] == 6 * 24
    tokens = (await ask(server, "POST", "/tokenize", {"prompt": long})).json()["count"]
    assert both["usage"]["prompt_tokens"] == 5 + tokens  # a prompt once, whatever n

    drawn = {"prompt": PROMPT, "max_tokens": 24, "temperature": 1, "n": 3, "seed": 5}
    texts = [c["text"] for c in (await completion(server, drawn))["choices"]]
    assert len(set(texts)) == 3
    assert [c["text"] for c in (await completion(server, drawn))["choices"]] == texts
    alone = await completion(server, {**drawn, "n": 1})
    assert alone["choices"][0]["text"] == texts[0]
    unseeded = [(await completion(server, {**drawn, "n": 1, "seed": None}))["choices"][0]["text"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]

    text = plain[0]["text"]
    stop = text[10:14]
    cut = (await completion(server, greedy(stop=["never there", stop])))["choices"][0]
    assert cut["text"] == text[:text.index(stop)] and cut["finish_reason"] == "stop"
    assert (await completion(server, greedy(stop=stop)))["choices"][0]["text"] == cut["text"]

    logged = (await completion(server, greedy(logprobs=3)))["choices"][0]
    assert logged["token_ids"] == plain[0]["token_ids"]
    assert "".join(logged["logprobs"]["tokens"]) == logged["text"]
    for token, value, top, offset in zip(*(logged["logprobs"][k] for k in (
            "tokens", "token_logprobs", "top_logprobs", "text_offset"))):
        assert len(top) == 3 and top[token] == value == max(top.values())  # greedy
        assert logged["text"][offset:].startswith(token)
    forced = await completion(server, greedy(logit_bias={"77": 100}, tokens=5))
    assert forced["choices"][0]["token_ids"] == [77] * 5
    penalised = await completion(server, greedy(frequency_penalty=2, presence_penalty=2, tokens=40))
    assert penalised["choices"][0]["token_ids"][:40] != plain[0]["token_ids"]
    ended = await completion(server, greedy(tokens=40, stop_token_ids=[plain[0]["token_ids"][7]]))
    first = plain[0]["token_ids"].index(plain[0]["token_ids"][7])
    assert ended["choices"][0]["token_ids"] == plain[0]["token_ids"][:first + 1]
    assert ended["choices"][0]["finish_reason"] == "stop"


async def formats(server):
    """json_object and json_schema: whatever the model would say, what it says is JSON of that form."""
    schema = {"type": "object", "required": ["name", "age"], "additionalProperties": False, "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["fox", "crow"]}}}
    drawn = {"prompt": PROMPT, "max_tokens": 1000, "temperature": 1.2, "n": 4, "seed": 3}
    as_schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = await completion(server, {**drawn, "response_format": as_schema})
    for choice in answer["choices"]:
        value = json.loads(choice["text"])
        assert choice["finish_reason"] == "stop" and list(value)[:2] == ["name", "age"], choice
        assert len(value["name"]) <= 8 and 0 <= value["age"] <= 150 and value.get("kind", "fox") in ("fox", "crow")
    answer = await completion(server, {**drawn, "response_format": {"type": "json_object"}})
    ended = [json.loads(c["text"]) for c in answer["choices"] if c["finish_reason"] == "stop"]
    assert all(isinstance(value, dict) for value in ended)
    assert all(c["text"].startswith("{") for c in answer["choices"])
    whole = await completion(server, {**drawn, "max_tokens": 20, "response_format": {"type": "text"}})
    assert whole["choices"] == (await completion(server, {**drawn, "max_tokens": 20}))["choices"]
    wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "propertyNames": {}}}}
    error = (await completion(server, {**drawn, "response_format": wrong}, 400))["error"]
    assert error["param"] == "response_format" and "propertyNames" in error["message"], error


async def refusals(server):
    """OpenAI's shape, with the field's name."""
    async def refused(body, param, message, path="/v1/completions", status=400):
        response = await ask(server, "POST", path, body)
        error = response.json()["error"]
        assert response.status == status and set(error) == {"message", "type", "param", "code"}, response.body
        assert error["param"] == param and message in error["message"], error

    await refused({}, "prompt", "must be a string")
    await refused(greedy(max_tokens=0), "max_tokens", "at least 1, got 0")
    await refused(greedy(temperature="hot"), "temperature", 'got "hot"')
    await refused(greedy(n=1.5), "n", "whole number")
    await refused(greedy(suffix="x"), "suffix", "not supported")
    await refused(greedy(best_of=4), "best_of", "must be n")
    await refused(greedy(stop=["a"] * 17), "stop", "at most 16")
    await refused(greedy(logit_bias={"9999999": 1}), None, "must be below 2048")
    await refused(greedy(prompt=[5, 2048]), "prompt", "must be below 2048, got 2048 at index 1")
    await refused(greedy(prompt=[[5], "x"]), "prompt[1]", "as all are")
    await refused(greedy(prompt="x " * 5000), "prompt", "at most 2047 tokens")
    await refused(greedy(prompt=""), "prompt", "at least one token")
    await refused(greedy(model="gpt-4"), "model", 'must be "fables", got "gpt-4"', status=404)
    await refused(greedy(stream_options={"include_usage": True}), "stream_options", "stream: true")
    await refused(greedy(stream=True, stream_options=3), "stream_options", "must be an object")
    await refused({"messages": [{"role": "user", "content": "x"}]}, "messages", "chat template",
                  "/v1/chat/completions")
    await refused({"messages": []}, "messages", "at least one", "/v1/chat/completions")
    await refused({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type",
                  "must be text", "/v1/chat/completions")
    await refused({"tokens": ["x"]}, "tokens[0]", "must be a token id", "/detokenize")
    client = await Client.connect(server)  # one connection survives all of these
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405),
                                 ("GET", "/v1/models/other", 404), ("GET", "/../../etc/passwd", 404),
                                 ("BREW", "/", 405)):
        response = await client.ask(method, path)
        assert response.status == status and "error" in response.json(), (path, response.status)
    assert (await client.ask("GET", "/v1/models/fables")).json()["id"] == "fables"
    head = await client.ask("HEAD", "/health", head_only=True)
    assert head.status == 200 and head.headers["content-length"] != "0"
    options = await client.ask("OPTIONS", "/v1/completions")
    assert options.status == 204 and options.headers["allow"] == "POST, OPTIONS"
    assert "access-control-allow-origin" not in options.headers
    assert (await client.ask("POST", "/v1/completions", greedy(), ["X-Priority: high"])).status == 400
    assert (await client.ask("POST", "/v1/completions", greedy(), ["X-Priority: -3"])).status == 200
    assert (await client.ask("GET", "/health", headers=["Origin: https://example.com"])).status == 403
    assert (await client.ask("GET", "/health", headers=[f"Origin: {server.url}"])).status == 200
    await client.close()
    named = await Client.connect(server)
    named.send_bytes(b"GET /health HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
    assert (await named.read()).status == 403
    await named.close()


async def connections(server):
    """Requests sent ahead are answered in turn; 100-continue; a half of a request and an end."""
    client = await Client.connect(server)
    for tokens in (3, 5, 7):
        client.send("POST", "/v1/completions", greedy(tokens=tokens))
    client.send("GET", "/health")
    for tokens in (3, 5, 7):
        assert len((await client.read()).json()["choices"][0]["token_ids"]) == tokens
    assert (await client.read()).status == 200
    body = json.dumps(greedy(tokens=2)).encode()
    client.send_bytes(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body))
    assert (await client.read()).status == 100
    client.send_bytes(body)
    assert (await client.read()).status == 200
    client.send_bytes(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        client.send_bytes(b"1\r\n%c\r\n" % byte)
    client.send_bytes(b"0\r\n\r\n")
    assert (await client.read()).status == 200
    client.send("GET", "/health", headers=["Connection: close"])
    assert (await client.read()).headers["connection"] == "close" and await client.ended()
    await client.close()
    half = await Client.connect(server)
    half.send_bytes(b"POST /v1/completions HTTP/1.1\r\nContent-Le")
    half.writer.write_eof()
    assert await half.ended()
    await half.close()
    # A request and an end behind it: a question for the engine is given up, others are answered.
    health = await Client.connect(server)
    health.send("GET", "/health")
    health.writer.write_eof()
    assert (await health.read()).status == 200
    await health.close()


async def cancellation(server):
    """Clients that go away, in every way: the metrics say that their pages are free, and that few tokens more came."""
    async def goes(how, stream):
        before = await metrics(server)
        client = await Client.connect(server)
        client.send("POST", "/v1/completions", greedy(tokens=2000, stream=stream, ignore_eos=True))
        if stream:
            await client.read_head()
            await client.read_chunk()

        async def runs():
            return (await metrics(server))["hadal_cache_pages_used"] > 0
        await until(runs)
        how(client)

        async def free():
            now = await metrics(server)
            return now["hadal_cache_pages_used"] == 0 and now["hadal_requests_open"] == 0
        await until(free)
        after = await metrics(server)
        assert after["hadal_generated_tokens_total"] - before["hadal_generated_tokens_total"] < 1900
        cancelled = 'hadal_requests_total{finish="cancelled"}'
        assert after[cancelled] == before.get(cancelled, 0) + 1
        assert after["hadal_clients_gone_total"] == before["hadal_clients_gone_total"] + 1
        await client.close()

    for stream in (True, False):
        await goes(Client.reset, stream)
        await goes(lambda c: c.writer.close(), stream)
        await goes(lambda c: c.writer.write_eof(), stream)  # half-closed counts as gone


async def with_curl(server):
    assert json.loads(curl(server.url + "/health")) == {
        "status": "ok", "model": "fables", "chat": False, "needs_key": False}
    page = curl("-i", server.url + "/")
    assert "Content-Security-Policy: default-src 'none'" in page and "<!doctype html>" in page
    assert "{{NONCE}}" not in page and "https://" not in page and page.count("nonce=\"n-") == 2
    body = json.dumps(greedy(tokens=6))
    answer = json.loads(curl(server.url + "/v1/completions", "-H", "Content-Type: application/json", "-d", body))
    stream = curl("-N", server.url + "/v1/completions", "-d", json.dumps(greedy(tokens=6, stream=True)))
    pieces = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert "".join(p["choices"][0]["text"] for p in pieces) == answer["choices"][0]["text"]
    big = json.dumps(greedy(prompt="x" * 3_000_000)).encode()  # curl asks with Expect: 100-continue
    assert "at most 2047 tokens" in curl(server.url + "/v1/completions", "--data-binary", "@-", data=big)


async def everything_on_one_server():
    with Server() as server:
        for test in (completions, choices_and_sampling, formats, refusals, connections, cancellation, with_curl):
            await test(server)
            print(f"  {test.__name__}", flush=True)
        assert PROMPT not in server.log() and "POST /v1/completions 200" in server.log()
        code, _ = server.stop()
        assert code == 0


async def demanded_calls(server, body):
    """tool_choice holds the answer to a call, whatever the model would rather say."""
    weather = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": weather}},
             {"type": "function", "function": {"name": "stop"}}]
    named = {**body, "tools": tools, "tool_choice": {"type": "function", "function": {"name": "weather"}}}
    end = (await ask(server, "POST", "/tokenize", {"prompt": "</think>"})).json()["tokens"][0]
    for more in ({}, {"chat_template_kwargs": {"thinking": True}, "logit_bias": {str(end): 50}}):  # a short thought
        whole = (await ask(server, "POST", "/v1/chat/completions", {**named, **more, "n": 2})).json()
        for choice in whole["choices"]:
            assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None, choice
            (call,) = choice["message"]["tool_calls"]
            assert call["type"] == "function" and call["function"]["name"] == "weather"
            assert json.loads(call["function"]["arguments"]) in ({"city": "Paris"}, {"city": "Rome"})
        assert len({c["message"]["tool_calls"][0]["id"] for c in whole["choices"]}) == 2
        events = (await ask(server, "POST", "/v1/chat/completions", {**named, **more, "stream": True})).events()
        choices = [e["choices"][0] for e in events]
        assert sum([c.get("token_ids", []) for c in choices], []) == whole["choices"][0]["token_ids"]
        deltas = [d for c in choices for d in c["delta"].get("tool_calls", [])]
        assert deltas[0]["function"]["name"] == "weather" and all(d["index"] == 0 for d in deltas)
        assert ("".join(d["function"]["arguments"] for d in deltas)
                == whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
        assert choices[-1]["finish_reason"] == "tool_calls"
    one_of = {**body, "tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "n": 8}
    answers = (await ask(server, "POST", "/v1/chat/completions", one_of)).json()["choices"]
    assert all(len(c["message"]["tool_calls"]) == 1 for c in answers), answers
    cut = (await ask(server, "POST", "/v1/chat/completions", {**named, "max_tokens": 3})).json()["choices"][0]
    assert cut["finish_reason"] == "length" and "tool_calls" not in cut["message"] and cut["message"]["content"]
    for wrong, param in (({"tools": []}, "tool_choice"), ({"tool_choice": "any"}, "tool_choice"),
                         ({"tools": [{"type": "function", "function": {"name": "weather", "parameters": {"not": {}}}}]},
                          "tools")):
        refused = await ask(server, "POST", "/v1/chat/completions", {**named, **wrong})
        assert refused.status == 400 and refused.json()["error"]["param"] == param, refused.body


async def chat(server):
    async def rendered(**more):
        body = {"messages": [{"role": "system", "content": "Tell."}, {"role": "user", "content": [
            {"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}], **more}
        return body, (await ask(server, "POST", "/tokenize", body)).json()["tokens"]

    async def completed(ids, **more):
        return (await completion(server, greedy(ids, **more)))["choices"][0]

    body, ids = await rendered()
    text = (await ask(server, "POST", "/detokenize", {"tokens": ids})).json()["prompt"]
    assert text == f"{BEGIN}Tell.{USER}One\ntwo{ASSISTANT}</think>", text
    options = {"temperature": 0, "max_completion_tokens": 20, "return_token_ids": True}
    answer = (await ask(server, "POST", "/v1/chat/completions", {**body, **options})).json()
    expected = await completed(ids, tokens=20)
    choice = answer["choices"][0]
    assert answer["object"] == "chat.completion" and answer["usage"]["prompt_tokens"] == len(ids)
    assert choice["message"] == {"role": "assistant", "content": expected["text"]}
    assert choice["token_ids"] == expected["token_ids"]
    events = (await ask(server, "POST", "/v1/chat/completions", {**body, **options, "stream": True, "n": 2})).events()
    for index in (0, 1):
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in own) == expected["text"]
        assert own[-1]["finish_reason"] == "length"
    logged = (await ask(server, "POST", "/v1/chat/completions", {**body, **options, "logprobs": True,
                                                                 "top_logprobs": 2})).json()["choices"][0]
    content = logged["logprobs"]["content"]
    assert b"".join(bytes(t["bytes"]) for t in content).decode() == expected["text"] and len(content) == 20
    assert all(t["top_logprobs"][0]["token"] == t["token"] and len(t["top_logprobs"]) == 2 for t in content)
    # Thinking: what comes before </think> is reported apart. A bias makes the model end its thought at once.
    end = (await ask(server, "POST", "/tokenize", {"prompt": "</think>"})).json()["tokens"]
    assert len(end) == 1
    thinking, thinking_ids = await rendered(chat_template_kwargs={"thinking": True})
    assert thinking_ids != ids
    thought = (await ask(server, "POST", "/v1/chat/completions", {**thinking, **options})).json()
    message, free = thought["choices"][0]["message"], await completed(thinking_ids, tokens=20)
    assert (message["reasoning_content"], message["content"]) == (free["text"], "")
    assert thought["usage"]["completion_tokens_details"]["reasoning_tokens"] == 20
    short = {**thinking, **options, "logit_bias": {str(end[0]): 100}, "frequency_penalty": 2}
    events = (await ask(server, "POST", "/v1/chat/completions", {**short, "stream": True})).events()
    message = (await ask(server, "POST", "/v1/chat/completions", short)).json()["choices"][0]["message"]
    assert message["reasoning_content"] == ""
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == message["content"]
    # A thought that the model opens itself, here by a bias, is told apart as well; a completion's is text.
    begin = (await ask(server, "POST", "/tokenize", {"prompt": "<think>"})).json()["tokens"]
    own = {"logit_bias": {str(begin[0]): 100}}
    events = (await ask(server, "POST", "/v1/chat/completions", {
        **body, **options, **own, "stream": True, "stream_options": {"include_usage": True}})).events()
    answer = (await ask(server, "POST", "/v1/chat/completions", {**body, **options, **own})).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "", "reasoning_content": "<think>" * 19}
    for usage in answer["usage"], events[-1]["usage"]:
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 20}, usage
    deltas = [e["choices"][0]["delta"] for e in events[:-1]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "<think>" * 19
    assert "".join(d.get("content", "") for d in deltas) == ""
    assert (await completed(ids, tokens=20, **own))["text"] == "<think>" * 20
    await demanded_calls(server, {**body, "temperature": 1, "seed": 3, "return_token_ids": True})


async def chat_and_keys():
    """A checkpoint with a template, keys and CORS."""
    with tempfile.TemporaryDirectory() as directory:
        keys = os.path.join(directory, "keys")
        open(keys, "w").write("first key\nsecond\n")
        model = model_with_template(directory)
        with Server("--served-model-name", "fables", model=model) as server:
            await chat(server)
            ids = (await completion(server, greedy(tokens=8)))["choices"][0]["token_ids"]
            print("  chat", flush=True)
            assert server.stop()[0] == 0
        refused = subprocess.run([os.environ["HADAL_SERVE"], FABLES, "--port", "0", "--api-key", ""], capture_output=True,
                                 text=True, timeout=60)
        assert refused.returncode == 2 and "--api-key: must be a key, got an empty one" in refused.stderr
        generation = {"do_sample": False, "top_p": 0.5, "max_new_tokens": 5, "eos_token_id": [1, ids[2]]}
        with open(os.path.join(model, "generation_config.json"), "w") as file:
            json.dump(generation, file)
        with Server("--api-key-file", keys, "--cors-origin", "https://example.com", "--speculate",
                    "--log-prompts", model=model) as server:
            for key, status in (("", 401), ("Bearer firs", 401), ("Bearer first key", 200), ("bearer second", 200),
                                ("second", 401), ("Bearer second ", 200), ("Bearer ", 401)):
                headers = [f"Authorization: {key}"] if key else []
                response = await ask(server, "GET", "/v1/models", headers=headers)
                assert response.status == status, (key, response.status)
            assert (await ask(server, "GET", "/health")).status == 200
            assert (await ask(server, "GET", "/metrics")).status == 401
            site = await ask(server, "OPTIONS", "/v1/completions", headers=["Origin: https://example.com"])
            assert site.headers["access-control-allow-origin"] == "https://example.com"
            assert (await ask(server, "GET", "/health", headers=["Origin: https://evil.example"])).status == 403
            await ask(server, "POST", "/v1/completions", greedy(tokens=1), headers=["Authorization: Bearer second"])
            assert '"Once upon a time"' in server.log()  # it was asked to
            # What the checkpoint's generation_config.json says where a request does not.
            assert "defaults from generation_config.json: temperature 0, top_p 0.5, max_new_tokens 5\n" in server.log()
            for more, tokens in (({}, ids[:ids.index(ids[2]) + 1]), ({"ignore_eos": True}, ids[:5]),
                                 ({"ignore_eos": True, "max_tokens": 7}, ids[:7])):
                answer = (await ask(server, "POST", "/v1/completions", {
                    "prompt": PROMPT, "return_token_ids": True, **more}, ["Authorization: Bearer second"])).json()
                assert answer["choices"][0]["token_ids"] == tokens, (more, answer)


async def the_end():
    """SIGTERM: what is short is finished, what is long ends with an error event in time, nobody new comes in."""
    with Server("--grace", "1") as server:
        idle = await Client.connect(server)
        short, long, whole = [await Client.connect(server) for _ in range(3)]
        long.send("POST", "/v1/completions", greedy(tokens=2000, stream=True, ignore_eos=True))
        whole.send("POST", "/v1/completions", greedy(tokens=2000, ignore_eos=True))
        short.send("POST", "/v1/completions", greedy(tokens=40, stream=True))
        await long.read_head()
        await short.read_head()
        loop = asyncio.get_running_loop()
        stopping = loop.run_in_executor(None, server.stop)
        assert await idle.ended()
        body = b""
        while chunk := await short.read_chunk():
            body += chunk
        assert body.endswith(b"data: [DONE]\n\n") and b'"error"' not in body
        body = b""
        while chunk := await long.read_chunk():
            body += chunk
        events = body.decode().split("\n\n")
        if '"finish_reason":"length"' not in events[-3]:  # a machine that is fast enough gets all of it
            assert json.loads(events[-3][6:])["error"]["code"] == "server_stopping", events[-3]
            assert (await whole.read()).status == 503
        assert events[-2] == "data: [DONE]"
        assert (await stopping)[0] == 0


if __name__ == "__main__":
    run(everything_on_one_server, chat_and_keys, the_end)
