#!/usr/bin/env python3
"""Runs hadal_pipeline_bench and llama-bench in turns on the same models and cores, prints every speed row
beside its bar with each engine at its own best number of threads, and writes all as JSON.
bench/compare_pipeline.sh prepares the models and calls it."""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

# What serves llama.cpp's Vulkan backend best on lavapipe: full vectors, products in float32.
VULKAN = {"LP_NATIVE_VECTOR_WIDTH": "512", "GGML_VK_DISABLE_COOPMAT": "1", "GGML_VK_DISABLE_F16": "1",
          "GGML_VK_VISIBLE_DEVICES": "0"}  # it ignores CPU devices that are not named


class Runs:
    """Samples by model, engine, threads and figure, over all rounds."""

    def __init__(self, args):
        self.args, self.samples = args, {}
        cache = open(os.path.join(args.build, "CMakeCache.txt")).read()
        sysroot = re.search(r"^HADAL_SYSROOT:\w+=(.+)$", cache, re.M)
        self.launcher = [os.path.join(sysroot.group(1), "run")] if sysroot else []

    def keep(self, model, engine, threads, figure, values):
        self.samples.setdefault((model, engine, figure), {}).setdefault(threads, []).extend(values)

    def best(self, model, engine, figure, highest=True):
        """(median, threads) of the best number of threads; None when it was not measured."""
        found = [(statistics.median(v), t) for t, v in self.samples.get((model, engine, figure), {}).items()]
        return (max if highest else min)(found, default=None)

    def run(self, what, command, environment, cores):
        command = shlex.split(self.args.wrap) + ["taskset", "-c", cores] + command
        begin = time.monotonic()
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=self.args.timeout)
        except subprocess.TimeoutExpired:
            print(f"  {what}: left out, over {self.args.timeout} s", flush=True)
            return None
        what += f", {time.monotonic() - begin:.0f} s"
        print(f"  {what}" + ("" if done.returncode == 0 else f": FAILED\n{done.stderr[-500:]}"), flush=True)
        return done.stdout if done.returncode == 0 else None

    def hadal(self, model, threads, options):
        environment = dict(os.environ, LP_NUM_THREADS=str(threads), LP_NATIVE_VECTOR_WIDTH="512")
        cores = self.args.core if threads < 2 else self.args.cores
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            words = self.launcher + [os.path.join(self.args.build, "bench/hadal_pipeline_bench"),
                                     self.args.root + f"{self.args.work}/{model}", "-r", str(self.args.repetitions),
                                     "--json", file.name] + options
            if self.run(f"hadal {model}, {threads} workers", words, environment, cores) is None:
                return
            for figure in json.load(open(file.name))["figures"]:
                self.keep(model, "hadal", threads, f"{figure['name']}, {figure['unit']}", figure["samples"])

    def llama(self, model, kind, backend, threads, repetitions, prompts=("-p", "128,512")):
        """llama-bench; threads are the CPU backend's, or the driver's workers."""
        settings = {"PATH": "/usr/bin:/bin", "HOME": self.args.work, "LC_ALL": "C",
                    "MESA_SHADER_CACHE_DIR": f"{self.args.work}/mesa-cache",
                    "VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json"}
        if backend == "cpu":
            settings["OMP_NUM_THREADS"] = str(threads)
            where, cores = ["-t", str(threads), "-ngl", "0", "-dev", "none"], self.args.core if threads < 2 else self.args.cores
        else:  # it waits actively, beside the driver's workers: both cores are its
            settings.update(VULKAN, LP_NUM_THREADS=str(threads))
            where, cores = ["-t", "2", "-ngl", "99", "-dev", "Vulkan0"], self.args.cores
        words = ["chroot", self.args.root, "env", "-i"] + [f"{k}={v}" for k, v in settings.items()] + [
            "llama-bench", "-m", f"{self.args.work}/{model}-{kind}.gguf", "-n", "64", "-r",
            str(repetitions), "-o", "json"] + list(prompts) + where
        output = self.run(f"llama.cpp {model} {kind}, {backend}, {threads} threads", words, None, cores)
        for test in json.loads(output) if output else []:
            figure = f"pp{test['n_prompt']}" if test["n_prompt"] else f"tg{test['n_gen']}"
            self.keep(model, f"llama.cpp {backend} {kind}", threads, figure + ", tokens/s", test["samples_ts"])


def measure(runs, args, first):
    """One round. The slow peers run in the first only, unless asked; without workers they are slowest."""
    for threads in args.workers:
        runs.hadal("fables", threads, ["--speculate", "200", "--reuse", "2000"])
        runs.hadal("random35m", threads, [])
        runs.llama("fables", "q8_0", "vulkan", threads, 2)
    for threads in args.threads:
        for model, kind in (("fables", "q8_0"), ("fables", "bf16"), ("random35m", "bf16")):
            runs.llama(model, kind, "cpu", threads, args.repetitions)
    for threads in args.workers:
        if threads and (first or args.thorough):
            runs.llama("random35m", "q8_0", "vulkan", threads, 1, ["-p", "0"])
            runs.llama("random35m", "bf16", "vulkan", threads, 1, ["-p", "0"])


def at(value):
    return "-" if value is None else f"{value[0]:.4g} ({value[1]})"


def best_of(runs, model, engines, figure, threads=None):
    """The fastest of several engines' settings: (median, "kind, threads")."""
    found = []
    for engine in engines:
        for t, values in runs.samples.get((model, engine, figure), {}).items():
            if threads is None or t == threads:
                found.append((statistics.median(values), f"{engine.split()[-1]}, {t}"))
    return max(found, default=None)


def table(runs):
    """Rows (what, hadal, peer, ratio, bar, stretch); bars are met from above, but the host's share's."""
    rows = []

    def against(what, model, figure, engines, bar, stretch, threads=None):
        figure += ", tokens/s"
        hadal, peer = runs.best(model, "hadal", figure), best_of(runs, model, engines, figure, threads)
        ratio = hadal[0] / peer[0] if hadal and peer else None
        rows.append((what, at(hadal), at(peer), ratio, bar, stretch))

    vulkan, cpu = [f"llama.cpp vulkan {k}" for k in ("q8_0", "bf16")], ["llama.cpp cpu q8_0"]
    against("decode / Vulkan", "fables", "tg64", vulkan, 10, 14)
    against("decode / CPU q8_0, one thread", "fables", "tg64", cpu, 0.2, 0.4, threads=1)
    against("decode 35M / CPU bf16", "random35m", "tg64", ["llama.cpp cpu bf16"], 0.15, 0.3)
    against("decode 35M / Vulkan", "random35m", "tg64", vulkan, 8, 14)
    against("prefill 512 / Vulkan", "fables", "pp512", vulkan, 8, 12)
    against("prefill 512 / CPU, its fastest", "fables", "pp512", cpu + ["llama.cpp cpu bf16"], 0.5, 1.0)
    many, one, prompt = (runs.best("fables", "hadal", f"{f}, tokens/s") for f in ("tg64x32", "tg64", "pp512"))
    if many and one and prompt:
        rows.append(("decode 32 / decode 1", at(many), at(one), many[0] / one[0], 5, None))
        rows.append(("decode 32 / prefill 512", at(many), at(prompt), many[0] / prompt[0], 0.6, 0.9))

    def own(what, figure, chosen_by, bar, stretch, highest=True):
        """At the number of threads that is best by another figure, a time or a rate."""
        chosen = runs.best("fables", "hadal", chosen_by, highest=not chosen_by.endswith("ms"))
        values = chosen and runs.samples.get(("fables", "hadal", figure), {}).get(chosen[1])
        value = (statistics.median(values), chosen[1]) if values else None
        rows.append((what, at(value), "", value and value[0], bar, stretch, highest))

    own("host share of a decode step, %", "host share of a step, percent", "tg64, tokens/s", 10, 3, False)
    own("tokens a verify step", "verify step, tokens", "text, plain, tokens/s", 1.67, None)
    own("speculation where it pays / plain", "drafts that pay / plain, ratio", "text, plain, tokens/s", 0.97, 1.15)
    own("prefix reuse: cold / 90 % known", "cold / 90 % known, ratio", "first token, cold, ms", 5, 8)
    return rows


def show(rows):
    print("\n| what | hadal (workers) | beside (threads) | figure | bar | stretch | met |\n|---|---|---|---|---|---|---|")
    for what, hadal, peer, figure, bar, stretch, *highest in rows:
        def met(limit):
            return figure <= limit if highest == [False] else figure >= limit
        verdict = "-" if figure is None else "NO" if not met(bar) else "stretch" if stretch and met(stretch) else "yes"
        number = "-" if figure is None else f"{figure:.3g}"
        print(f"| {what} | {hadal} | {peer} | {number} | {bar} | {stretch or ''} | {verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="", help="Debian testing root with llama.cpp")
    parser.add_argument("--work", default="", help="directory with the models, inside the root")
    parser.add_argument("--build", default="build")
    parser.add_argument("--core", default="1", help="where engines of one thread run")
    parser.add_argument("--cores", default="0,1", help="where engines of several threads run")
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--workers", type=numbers, default=[0, 1, 2], help="the driver's, for hadal and Vulkan")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="of the CPU backend")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=5, help="of every case in a round")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of a program")
    parser.add_argument("--thorough", action="store_true", help="slow peers in every round")
    parser.add_argument("--wrap", default="", help="in front of every command, e.g. 'nice -n -10'")
    parser.add_argument("--json", help="all samples and the table go to this file")
    args = parser.parse_args()
    runs = Runs(args)
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", flush=True)
        measure(runs, args, number == 0)
        rows = table(runs)
        show(rows)
        if args.json:
            samples = [{"model": m, "engine": e, "figure": f, "threads": t, "samples": v}
                       for (m, e, f), by in runs.samples.items() for t, v in by.items()]
            with open(args.json, "w") as out:
                json.dump({"samples": samples, "table": [list(r[:6]) for r in rows]}, out, indent=1)
    return 0 if all(r[3] is not None for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
