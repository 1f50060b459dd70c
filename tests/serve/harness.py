"""Starts hadal-serve and talks to it over plain sockets; used by the tests beside this file.

Environment: HADAL_SERVE the program, HADAL_TEST_LAUNCHER what starts it (optional), HADAL_FABLES the model,
HADAL_SERVE_NODE_MODULES where setup.sh has put the client, HADAL_SERVE_CACHE for pipelines (optional), HADAL_TEST_ALL
the long forms."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LONG = bool(os.environ.get("HADAL_TEST_ALL"))
FABLES = os.environ["HADAL_FABLES"]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"


class Server:
    """The program as a child, until the end of the with block."""

    def __init__(self, *flags, model=FABLES):
        self.flags, self.model = [str(f) for f in flags], model

    def __enter__(self):
        environment = dict(os.environ, LP_NUM_THREADS="0", XDG_CACHE_HOME=_cache())
        command = os.environ.get("HADAL_TEST_LAUNCHER", "").split() + [
            os.environ["HADAL_SERVE"], self.model, "--port", "0"] + self.flags
        self.errors = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment)
        line = self.child.stdout.readline()
        if " on http://" not in line:
            raise RuntimeError(f"no server: {line}{self.log()}")
        self.url = line.split(" on ")[1].strip()
        self.host, self.port = self.url.removeprefix("http://").rsplit(":", 1)
        self.port = int(self.port)
        return self

    def __exit__(self, kind, value, trace):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if kind is not None:
            print("---- the server's last lines", self.log()[-3000:], sep="\n", file=sys.stderr)
        self.child.stdout.close()
        self.errors.close()

    def stop(self, sign=signal.SIGTERM, timeout=60):
        """Exit code and seconds until the end."""
        begin = time.monotonic()
        self.child.send_signal(sign)
        return self.child.wait(timeout), time.monotonic() - begin

    def log(self):
        self.errors.seek(0)
        return self.errors.read()

    def resident_kib(self):
        for line in open(f"/proc/{self.child.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("no VmRSS")


_cache_directory = None


def _cache():
    """Pipelines are compiled once, and the user's cache is not touched."""
    global _cache_directory
    if "HADAL_SERVE_CACHE" in os.environ:
        return os.environ["HADAL_SERVE_CACHE"]
    if _cache_directory is None:
        _cache_directory = tempfile.TemporaryDirectory()
    return _cache_directory.name


def model_with_template(directory, template="v31.jinja"):
    """A copy of fables that has a chat template."""
    path = os.path.join(directory, "fables-chat")
    shutil.copytree(FABLES, path)
    shutil.copy(os.path.join(SOURCE, "tests/chat_templates", template), os.path.join(path, "chat_template.jinja"))
    return path


class Response:
    def __init__(self, status, headers, body, first_byte_seconds=0.0):
        self.status, self.headers, self.body, self.first_byte_seconds = status, headers, body, first_byte_seconds

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The JSON of each event; [DONE] must be the last."""
        blocks = self.body.decode().split("\n\n")
        assert blocks[-1] == "" and blocks[-2] == "data: [DONE]", blocks[-3:]
        return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


class Client:
    """One connection."""

    @classmethod
    async def connect(cls, server, receive_buffer=None):
        self = cls()
        self.server = server
        if receive_buffer is None:
            self.reader, self.writer = await asyncio.open_connection(server.host, server.port)
        else:
            import socket
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            s.setblocking(False)
            await asyncio.get_running_loop().sock_connect(s, (server.host, server.port))
            self.reader, self.writer = await asyncio.open_connection(sock=s, limit=receive_buffer)
        return self

    def send_bytes(self, data):
        self.writer.write(data)

    def send(self, method, path, body=None, headers=()):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.server.host}:{self.server.port}", *headers]
        if body is not None:
            head.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + (body or b""))

    async def read_head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return int(lines[0].split()[1]), headers

    async def read_chunk(self):
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def read(self, head_only=False):
        begin = time.monotonic()
        status, headers = await self.read_head()
        first, body = time.monotonic() - begin, b""
        if headers.get("transfer-encoding") == "chunked":
            while chunk := await self.read_chunk():
                body += chunk
        elif "content-length" in headers and not head_only:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Response(status, headers, body, first)

    async def ask(self, method, path, body=None, headers=(), head_only=False):
        self.send(method, path, body, headers)
        await self.writer.drain()
        return await self.read(head_only)

    async def ended(self):
        """Whether the server has closed, now or soon."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 20) == b""
        except ConnectionError:
            return True

    def reset(self):
        """Gone at once, without a word."""
        self.writer.transport.abort()

    async def close(self):
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


async def ask(server, method, path, body=None, headers=()):
    client = await Client.connect(server)
    try:
        return await client.ask(method, path, body, headers)
    finally:
        await client.close()


async def metrics(server):
    """Values by name with labels."""
    text = (await ask(server, "GET", "/metrics")).body.decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines() if line and not line.startswith("#")}


async def until(check, seconds=20):
    """Asks `check` until it is true: what happens at another time than ours."""
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


def run(*tests):
    """Each test is a coroutine function; names of tests as arguments choose among them."""
    wanted = sys.argv[1:]
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        begin = time.monotonic()
        print(f"{test.__name__} ...", flush=True)
        asyncio.run(test())
        print(f"{test.__name__} ok, {time.monotonic() - begin:.1f} s", flush=True)
