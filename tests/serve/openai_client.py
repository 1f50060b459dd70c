"""The Python package openai, and the program llm upon it, as clients: python3 openai_client.py URL KEY"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def refused(kind, call, param=None):
    try:
        call()
    except kind as error:
        assert param is None or error.param == param, error
        return
    raise AssertionError(f"{kind.__name__} did not come")


model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

# Completions: whole, streamed, several.
ask = dict(model=model, prompt="Once upon a time", max_tokens=24, temperature=0)
whole = client.completions.create(**ask)
assert whole.usage.completion_tokens == 24 and whole.choices[0].finish_reason == "length"
parts = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
assert parts[-1].usage == whole.usage
several = client.completions.create(model=model, prompt=["The king", "The queen"], n=2, max_tokens=8, seed=1, temperature=1)
assert [choice.index for choice in several.choices] == [0, 1, 2, 3]

# Chat: whole, the package's accumulating stream, log-probabilities.
talk = dict(model=model, messages=[{"role": "system", "content": "Tell."}, {"role": "user", "content": "A tale"}],
            temperature=0, stop=["."], logprobs=True, top_logprobs=2)
answer = client.chat.completions.create(**talk)
assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens
with client.chat.completions.stream(**talk) as stream:
    for event in stream:
        pass
    final = stream.get_final_completion()
assert final.choices[0].message.content == answer.choices[0].message.content
assert final.choices[0].logprobs.content == answer.choices[0].logprobs.content

# An answer that its schema holds, parsed by the package.
schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}
held = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "Who?"}], max_completion_tokens=200, seed=5,
    response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}})
if held.choices[0].finish_reason == "stop":
    person = json.loads(held.choices[0].message.content)
    assert set(person) == {"name", "age"} and isinstance(person["age"], int), person

# A call that is demanded, whole and streamed. (The package's accumulating stream gives jiter an argument that Debian's jiter
# does not have.)
plan = {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["days"]}
call = dict(model=model, messages=[{"role": "user", "content": "Plan"}], temperature=0,
            tools=[{"type": "function", "function": {"name": "plan", "parameters": plan}}],
            tool_choice={"type": "function", "function": {"name": "plan"}})
planned = client.chat.completions.create(**call).choices[0]
assert planned.finish_reason == "tool_calls" and planned.message.content is None, planned
(own,) = planned.message.tool_calls
assert own.type == "function" and own.function.name == "plan" and 1 <= json.loads(own.function.arguments)["days"] <= 9
choices = [part.choices[0] for part in client.chat.completions.create(**call, stream=True)]
deltas = [delta for choice in choices for delta in choice.delta.tool_calls or []]
assert deltas[0].function.name == "plan" and deltas[0].id and choices[-1].finish_reason == "tool_calls"
assert "".join(delta.function.arguments for delta in deltas) == own.function.arguments

# Errors have the package's own classes.
refused(openai.NotFoundError, lambda: client.completions.create(**dict(ask, model="gpt-4")))
refused(openai.BadRequestError, lambda: client.completions.create(**dict(ask, max_tokens=-1)), "max_tokens")
refused(openai.AuthenticationError, lambda: openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0).models.list())
refused(openai.APITimeoutError, lambda: client.with_options(timeout=0.05).completions.create(
    **dict(ask, max_tokens=2000), extra_body={"ignore_eos": True}))


async def many():
    """The asynchronous client, 16 answers at once: what each is alone; one is left in the middle."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        async def one(i):
            answer = await client.completions.create(**dict(ask, prompt=f"The {i}th king", max_tokens=20))
            return answer.choices[0].text
        together = await asyncio.gather(*map(one, range(16)))
        assert together == [await one(i) for i in range(16)]
        stream = await client.completions.create(**dict(ask, max_tokens=2000), stream=True, extra_body={"ignore_eos": True})
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 3:
                await stream.close()
                break
        assert seen == 3


asyncio.run(many())

# llm: a prompt, then one that goes on in the conversation.
with tempfile.TemporaryDirectory() as home:
    with open(os.path.join(home, "extra-openai-models.yaml"), "w") as file:
        json.dump([{"model_id": "here", "model_name": model, "api_base": f"{url}/v1", "api_key_name": "here"}], file)
    environment = dict(os.environ, LLM_USER_PATH=home)

    def llm(*words):
        child = subprocess.run(["llm", *words], env=environment, capture_output=True, text=True, timeout=60)
        assert child.returncode == 0, child.stderr
        return child.stdout

    llm("keys", "set", "here", "--value", key)
    said = answer.choices[0].message.content
    first = llm("prompt", "A tale", "-s", "Tell.", "-m", "here", "-o", "temperature", "0", "-o", "stop", ".")
    assert first.removesuffix("\n") == said, (first, said)
    second = llm("prompt", "-c", "Go on", "--no-stream", "-o", "temperature", "0", "-o", "max_tokens", "24")
    messages = talk["messages"] + [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on"}]
    alone = client.chat.completions.create(model=model, messages=messages, temperature=0, max_completion_tokens=24)
    assert second.removesuffix("\n") == alone.choices[0].message.content, second
print(f"  openai {openai.__version__} on Python {sys.version.split()[0]}, llm")
