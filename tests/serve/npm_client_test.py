"""The npm package openai, as it is published, against the program: lists, completions, chat, streams, errors, aborts. Exit code
77 where setup.sh could not fetch it."""

import os
import subprocess
import sys
import tempfile

from harness import Server, model_with_template, run

HERE = os.path.dirname(os.path.abspath(__file__))


async def the_client_that_most_people_have():
    with tempfile.TemporaryDirectory() as directory:
        keys = os.path.join(directory, "keys")
        open(keys, "w").write("a key\n")
        with Server("--api-key-file", keys, "--speculate", model=model_with_template(directory)) as server:
            node = subprocess.run(["node", os.path.join(HERE, "openai_client.mjs"), server.url, "a key"], capture_output=True,
                                  text=True, timeout=120)
            print(node.stdout, end="", flush=True)
            assert node.returncode == 0, node.stderr
            assert server.stop()[0] == 0


if __name__ == "__main__":
    if not os.path.exists(os.path.join(os.environ["HADAL_SERVE_NODE_MODULES"], "openai/package.json")):
        print("no npm package openai in .cache/serve-client: setup.sh could not fetch it")
        sys.exit(77)
    run(the_client_that_most_people_have)
