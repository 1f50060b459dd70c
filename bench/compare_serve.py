#!/usr/bin/env python3
"""Runs hadal_serve_bench on the engine alone, on hadal-serve and on llama-server, in turns, with the same requests and
weights, and prints the medians. bench/compare_serve.sh prepares the models and calls it."""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

from compare_pipeline import VULKAN

FIGURES = ("tokens_per_second", "requests_per_second", "first_token_p50", "first_token_p95", "first_token_p99",
           "between_tokens_p50", "between_tokens_p95", "between_tokens_p99", "client_cpu")
BARS = {1: 0.95, 32: 0.9}  # of the engine alone


class Runs:
    def __init__(self, args):
        self.args, self.samples = args, {}  # (who, streams) to figures to values
        cache = open(os.path.join(args.build, "CMakeCache.txt")).read()
        sysroot = re.search(r"^HADAL_SYSROOT:\w+=(.+)$", cache, re.M)
        self.launcher = [os.path.join(sysroot.group(1), "run")] if sysroot and sysroot.group(1) else []
        self.bench = os.path.join(args.build, "bench/hadal_serve_bench")

    def command(self, words, cores):
        return shlex.split(self.args.wrap) + ["taskset", "-c", cores] + words

    def keep(self, who, output):
        for line in output.splitlines():
            run = json.loads(line)
            figures = self.samples.setdefault((who, run["streams"]), {})
            for name in FIGURES:
                figures.setdefault(name, []).append(run[name])

    def load(self, who, words, environment=None, rounds=None):
        """The client may use both cores: what it takes of the server's is the server's business, and is printed."""
        words = self.command(words + ["--streams", ",".join(map(str, self.args.streams)), "--rounds",
                                      str(rounds or self.args.rounds)],
                             self.args.cores)
        begin = time.monotonic()
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=self.args.timeout)
        print(f"  {who}, {time.monotonic() - begin:.0f} s" + (f": FAILED {done.stderr}" if done.returncode else ""), flush=True)
        self.keep(who, done.stdout)

    @contextlib.contextmanager
    def server(self, words, environment, health):
        child = subprocess.Popen(self.command(words, self.args.cores), env=environment, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            until(health, child)
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()

    def hadal(self, threads, model):
        environment = dict(os.environ, LP_NUM_THREADS=str(threads), LP_NATIVE_VECTOR_WIDTH="512")
        self.load(f"engine alone, {threads} workers", self.launcher + [self.bench, "--engine", model], environment)
        words = self.launcher + [os.path.join(self.args.build, "examples/hadal-serve"), model, "--quiet", "--port",
                                 str(self.args.port)]
        with self.server(words, environment, f"http://127.0.0.1:{self.args.port}/health"):
            self.load(f"hadal-serve, {threads} workers", [self.bench, "--server", f"127.0.0.1:{self.args.port}"])

    def llama(self, backend, threads):
        settings = {"PATH": "/usr/bin:/bin", "HOME": self.args.work, "LC_ALL": "C",
                    "MESA_SHADER_CACHE_DIR": f"{self.args.work}/mesa-cache",
                    "VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json"}
        if backend == "CPU":
            settings["OMP_NUM_THREADS"], where = str(threads), ["-t", str(threads), "-ngl", "0", "-dev", "none"]
        else:
            settings.update(VULKAN, LP_NUM_THREADS=str(threads))
            where = ["-t", "2", "-ngl", "99", "-dev", "Vulkan0"]
        most = max(self.args.streams)
        words = ["chroot", self.args.root, "env", "-i"] + [f"{k}={v}" for k, v in settings.items()] + [
            "llama-server", "-m", f"{self.args.work}/fables-q8_0.gguf", "--port", str(self.args.port), "-np", str(most), "-c",
            str(most * 256), "--alias", "fables"] + where
        with self.server(words, None, f"http://127.0.0.1:{self.args.port}/health"):
            self.load(f"llama-server {backend}, {threads} threads",
                      [self.bench, "--server", f"127.0.0.1:{self.args.port}", "--reconnect"], rounds=1 if backend == "Vulkan" else None)

    def median(self, who, streams, figure):
        values = self.samples.get((who, streams), {}).get(figure)
        return statistics.median(values) if values else None


def until(health, child):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended with {child.returncode}")
        try:
            if urllib.request.urlopen(health, timeout=2).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server does not become well")


def show(runs):
    print("\n| | streams | tokens/s | requests/s | first token, ms, p50 p95 p99 | between tokens, ms, p50 p95 p99 | client's CPU |"
          "\n|---|---|---|---|---|---|---|")
    for who, streams in runs.samples:
        at = lambda figure: runs.median(who, streams, figure)
        times = [" ".join(f"{1e3 * at(f'{kind}_p{p}'):.3g}" for p in (50, 95, 99)) for kind in ("first_token", "between_tokens")]
        if who.startswith("engine"):
            times = ["", ""]
        print(f"| {who} | {streams} | {at('tokens_per_second'):.0f} | {at('requests_per_second'):.3g} | {times[0]} | {times[1]} | "
              f"{100 * at('client_cpu'):.1f} % |")
    print("\n| hadal-serve / engine alone | streams | ratio | bar |\n|---|---|---|---|")
    for threads in runs.args.workers:
        for streams in runs.args.streams:
            pair = [runs.median(f"{who}, {threads} workers", streams, "tokens_per_second") for who in ("hadal-serve", "engine alone")]
            if all(pair):
                print(f"| {threads} workers | {streams} | {pair[0] / pair[1]:.3f} | {BARS.get(streams, '')} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--root", default="", help="Debian testing root with llama.cpp")
    parser.add_argument("--work", default="", help="directory with the models, inside the root")
    parser.add_argument("--build", default="build")
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--workers", type=numbers, default=[0], help="the driver's, for hadal")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="of llama-server's CPU backend")
    parser.add_argument("--vulkan", type=lambda text: numbers(text) if text else [], default=[2], help="the driver's workers for llama-server")
    parser.add_argument("--streams", type=numbers, default=[1, 32])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="in each turn")
    parser.add_argument("--port", type=int, default=8137)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--wrap", default="", help="in front of every command, e.g. 'nice -n -10'")
    parser.add_argument("--json", help="all samples go to this file")
    args = parser.parse_args()
    runs = Runs(args)
    for turn in range(args.turns):
        print(f"turn {turn + 1} of {args.turns}", flush=True)
        for threads in args.workers:
            runs.hadal(threads, "examples/models/fables")
        for threads in args.threads:
            runs.llama("CPU", threads)
        for threads in args.vulkan if turn == 0 else []:  # slow: one turn
            runs.llama("Vulkan", threads)
        show(runs)
        if args.json:
            with open(args.json, "w") as out:
                json.dump([{"who": w, "streams": s, **f} for (w, s), f in runs.samples.items()], out, indent=1)


if __name__ == "__main__":
    sys.exit(main())
