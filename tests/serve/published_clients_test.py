"""Clients that people have, as they are published, against the program: lists, completions, chat, streams, errors, aborts.
One test a run, named on the command line; exit code 77 where its client is out of reach."""

import os
import subprocess
import sys
import tempfile

from harness import Server, model_with_template, run

HERE = os.path.dirname(os.path.abspath(__file__))


def against_a_server(*command):
    with tempfile.TemporaryDirectory() as directory:
        keys = os.path.join(directory, "keys")
        open(keys, "w").write("a key\n")
        with Server("--api-key-file", keys, "--speculate", model=model_with_template(directory)) as server:
            client = subprocess.run([*command, server.url, "a key"], capture_output=True, text=True, timeout=900)
            print(client.stdout, end="", flush=True)
            if client.returncode == 77:
                print(client.stderr)
                sys.exit(77)
            assert client.returncode == 0, client.stderr
            assert server.stop()[0] == 0


async def the_npm_package():
    if not os.path.exists(os.path.join(os.environ["HADAL_SERVE_NODE_MODULES"], "openai/package.json")):
        print("no npm package openai in .cache/serve-client: setup.sh could not fetch it")
        sys.exit(77)
    against_a_server("node", os.path.join(HERE, "openai_client.mjs"))


async def the_python_package():
    """And llm, which uses it: in a root of Debian testing (HADAL_TESTING_ROOT names one that has them)."""
    root = os.environ.get("HADAL_TESTING_ROOT")
    against_a_server(os.path.join(HERE, "python_client.sh"), *(["--root", root] if root else []))


if __name__ == "__main__":
    run(the_npm_package, the_python_package)
