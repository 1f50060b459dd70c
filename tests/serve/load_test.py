"""64 streams at once for some seconds (HADAL_TEST_ALL: five minutes) on a cache that is too small for them: random
lengths, cancels, slow readers, half-closed connections. Every answer that ends is the same request's alone, token for
token; none is lost or comes twice; memory stays flat."""

import asyncio
import collections
import os
import random
import time

from harness import LONG, Client, Server, ask, metrics, run, until

STREAMS = 64
MOST = 120  # tokens of an answer
SECONDS = float(os.environ.get("HADAL_SERVE_LOAD_SECONDS", 300 if LONG else 10))
FILLER = " the king said to the fox that he would give him his daughter if he brought him the golden apple,"


def requests():
    """What is asked for; each has the tokens that it gets alone as its measure."""
    kinds = []
    for i in range(12):
        body = {"prompt": f"{i}. Once upon a time" + FILLER * (i % 4), "max_tokens": MOST, "return_token_ids": True,
                "seed": i, "temperature": 0 if i % 3 == 0 else 0.8, "ignore_eos": i % 2 == 0}
        if i % 4 == 1:
            body.update(presence_penalty=0.5, top_p=0.9)
        if i % 4 == 2:
            body.update(stop=[" fox", "apple"])
        kinds.append(body)
    return kinds


class Load:
    def __init__(self, server, alone):
        self.server, self.alone, self.ends = server, alone, collections.Counter()
        self.tokens = 0

    def check(self, kind, length, choices):
        """The pieces of an answer against the same request alone."""
        expected = self.alone[kind]
        ids = sum((c["token_ids"] for c in choices), [])
        text = "".join(c["text"] for c in choices)
        wanted = expected["token_ids"][:length]
        assert ids == wanted, (kind, length, ids, wanted)
        finish = expected["finish_reason"] if length >= len(expected["token_ids"]) else "length"
        # Text that waits for a stop string's end comes with the last token only where it is the last.
        if length >= len(expected["token_ids"]):
            assert text == expected["text"], (text, expected["text"])
        ends = [c["finish_reason"] for c in choices if c["finish_reason"]]
        assert len(ends) == 1 and choices[-1]["finish_reason"] == ends[0]
        assert ends[0] == finish or length == len(expected["token_ids"])
        self.tokens += len(ids)

    async def one(self, numbers):
        kind = numbers.randrange(len(self.alone))
        how = numbers.choices(("stream", "whole", "slow", "reset", "close", "half"), (8, 3, 3, 2, 2, 2))[0]
        length = numbers.randint(1, MOST)
        body = {**requests()[kind], "max_tokens": length, "stream": how != "whole"}
        client = await Client.connect(self.server, receive_buffer=4096 if how == "slow" else None)
        client.send("POST", "/v1/completions", body, [f"X-Priority: {numbers.randint(-2, 2)}"])
        if how == "whole":
            response = await client.read()
            assert response.status == 200, response.body
            self.check(kind, length, response.json()["choices"])
        elif how in ("reset", "close", "half"):
            await asyncio.sleep(numbers.random() * 0.3)
            getattr(self, how)(client)
        else:
            status, _ = await client.read_head()
            assert status == 200
            pieces = b""
            while chunk := await client.read_chunk():
                pieces += chunk
                if how == "slow":
                    await asyncio.sleep(numbers.random() * 0.05)
            from harness import Response
            self.check(kind, length, [e["choices"][0] for e in Response(200, {}, pieces).events()])
        # Nothing may come behind an answer.
        if how in ("stream", "slow", "whole"):
            assert (await client.ask("GET", "/health")).json()["status"] == "ok"
        self.ends[how] += 1
        await client.close()

    def reset(self, client):
        client.reset()

    def close(self, client):
        client.writer.close()

    def half(self, client):
        client.writer.write_eof()


async def streams_are_what_they_are_alone():
    # Pages for about ten of the longest requests at once.
    with Server("--cache-tokens", 2048, "--context", 1024, "--swap-mib", 8) as server:
        alone = []
        for body in requests():
            response = await ask(server, "POST", "/v1/completions", body)
            alone.append(response.json()["choices"][0])
        load = Load(server, alone)
        resident, begin = [], time.monotonic()

        async def worker(seed):
            numbers = random.Random(seed)
            while time.monotonic() < begin + SECONDS:
                await load.one(numbers)

        async def watch():
            while True:
                resident.append(server.resident_kib())
                await asyncio.sleep(SECONDS / 20)
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(worker(i) for i in range(STREAMS)))
        watching.cancel()
        seconds = time.monotonic() - begin

        async def all_is_free():
            now = await metrics(server)
            return now["hadal_requests_open"] == 0 and now["hadal_cache_pages_used"] == 0
        await until(all_is_free)
        now = await metrics(server)
        asked = sum(load.ends.values()) + len(alone)
        ended = sum(v for k, v in now.items() if k.startswith("hadal_requests_total"))
        answered = now['hadal_requests_total{finish="stop"}'] + now['hadal_requests_total{finish="length"}']
        print(f"  {asked} requests in {seconds:.0f} s: {dict(load.ends)}; {load.tokens / seconds:.0f} tokens/s checked; "
              f"{now['hadal_preemptions_total']:.0f} preemptions, {now['hadal_prefix_tokens_reused_total']:.0f} prompt "
              f"tokens reused; resident {resident[len(resident) // 4] >> 10} to {resident[-1] >> 10} MiB", flush=True)
        # One that was gone before its request was read is in no count.
        whole = load.ends["stream"] + load.ends["slow"] + load.ends["whole"] + len(alone)
        assert whole <= answered and answered <= ended <= asked
        assert 'hadal_requests_total{finish="failed"}' not in now
        assert load.ends["stream"] > 0 and load.ends["whole"] > 0
        assert resident[-1] < resident[len(resident) // 4] + 64 * 1024, resident
        assert server.stop()[0] == 0


if __name__ == "__main__":
    run(streams_are_what_they_are_alone)
