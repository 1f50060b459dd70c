#!/usr/bin/env python3
"""Runs hadal's benches and the peers' programs shape by shape, one after the other, on one core;
writes one JSON list and prints the ratios against the bars. bench/compare.sh prepares and calls it."""

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile

# (n, k) of DeepSeek-V3's linears that the bars name.
V3 = [(2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048)]
GROUPED = "experts=32,used=32,n=4096,k=7168,tokens=128,top_k=8,routing="
ROWS = [  # kernel bench, shape: 4096 tokens of 7168 channels
    ("fp8_quantize", "rows=4096,k=7168"),
    ("rms_norm", "rows=4096,n=7168,layer=0"),
    ("rms_norm", "rows=4096,n=7168,layer=1"),
    ("swiglu", "rows=4096,n=7168,fp8=0"),
    ("swiglu", "rows=4096,n=7168,fp8=1"),
    ("moe_permute", "tokens=4096,hidden=7168"),
    ("moe_permute", "tokens=4096,experts=256"),
    ("moe_gate", "tokens=4096,experts=256"),
]
GROUPS = ("dense", "matvec", "grouped", "bf16", "rows", "mla", "cores")
# Attention of DeepSeek-V3's 128 heads: (tokens, keys) of decode, one context that grows, (cached keys, queries).
DECODE = [(1, 1024), (1, 4096), (1, 16384), (8, 1024), (8, 4096), (8, 16384)]
GROWTH = [1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]
PREFILL = [(0, 256), (0, 2048), (4096, 256)]
CACHES = ("f32", "bf16", "fp8")
# Bars and stretch goals of the ratio to Eigen's float product, by m.
EIGEN_BARS = {16: (1.5, 2.5), 128: (0.75, 1.0), 512: (0.6, 0.8)}
CPU_BARS = {("q8_0", 16): 1.3, ("q8_0", 128): 1.3, ("q8_0", 512): 1.3,
            ("bf16", 16): 0.8, ("bf16", 128): 1.3, ("bf16", 512): 1.3}
VULKAN_SETTINGS = {
    "512": {"LP_NATIVE_VECTOR_WIDTH": "512", "GGML_VK_DISABLE_COOPMAT": "1", "GGML_VK_DISABLE_F16": "1"},
    "256": {"GGML_VK_DISABLE_COOPMAT": "1", "GGML_VK_DISABLE_F16": "1"},
    "256 f16": {"GGML_VK_DISABLE_COOPMAT": "1"},
    "as shipped": {},
}
ATTENTION_TYPES = ("f16", "q8_0")
ATTENTION_SETTINGS = ("512", "256")  # flash attention is faster at 256 bits, products at 512


class Runner:
    """Runs programs and collects their entries; of several rounds the fastest counts, for all."""

    def __init__(self, args):
        self.args = args
        self.entries = {}  # (path class, kernel, shape, threads) -> entry
        self.notes = {}
        self.launcher = []
        cache = open(os.path.join(args.build, "CMakeCache.txt")).read()
        sysroot = re.search(r"^HADAL_SYSROOT:\w+=(.+)$", cache, re.M)
        if sysroot and not args.own_driver:
            self.launcher = [os.path.join(sysroot.group(1), "run")]

    def add(self, file):
        """Entries of an earlier run, as if it had been a round of this one."""
        for e in json.load(open(file)):
            path = e["path"].split(",")[0]
            if path == "roofline":
                self.keep_roofline(e)
            else:
                self.keep((path if re.match("eigen|ggml", path) else "hadal", e["kernel"], e["shape"], e["threads"]), e)

    def keep_roofline(self, entry):  # the limit is the best that was seen
        key = ("roofline", entry["kernel"], "", entry["threads"])
        old = self.entries.get(key)
        if old is None or (old["tflops"], old["gb_per_s"]) <= (entry["tflops"], entry["gb_per_s"]):
            self.entries[key] = entry

    def command(self, core, words):
        return shlex.split(self.args.wrap) + ["taskset", "-c", str(core)] + words

    def keep(self, key, entry):
        old = self.entries.get(key)
        if old is None or entry["median_ns"] < old["median_ns"]:
            self.entries[key] = entry

    def hadal(self, bench, shape, threads=1, core=None):
        core = self.args.core if core is None else core
        environment = dict(os.environ, LP_NUM_THREADS=str(threads), LP_NATIVE_VECTOR_WIDTH=self.args.width)
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            words = self.launcher + [os.path.join(self.args.build, "bench", f"hadal_{bench}_bench"), "--shape", shape,
                                     "--json", file.name, "--seconds", str(self.args.seconds),
                                     "--samples", str(self.args.samples)] + shlex.split(self.args.bench_options)
            done = subprocess.run(self.command(core, words), env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                self.fail(f"hadal {bench} {shape}", done)
                return
            for entry in json.load(open(file.name)):
                if entry["path"] == "roofline":
                    self.keep_roofline(entry)
                else:
                    self.show(entry)
                    self.keep(("hadal", entry["kernel"], entry["shape"], threads), entry)

    def peer(self, path, words, environment):
        root, work = self.args.root, self.args.work
        base = {"PATH": "/usr/bin:/bin", "HOME": work, "LC_ALL": "C", "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1",
                "GGML_VK_VISIBLE_DEVICES": "0", "VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json",
                "MESA_SHADER_CACHE_DIR": f"{work}/mesa-cache", "PEER_SECONDS": str(self.args.seconds),
                "PEER_SAMPLES": str(self.args.samples)}
        settings = [f"{k}={v}" for k, v in {**base, **environment}.items()]
        command = self.command(self.args.core, ["chroot", root, "env", "-i"] + settings + words)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            self.fail(" ".join(words[1:]), done)
            return None
        if done.stdout.strip().endswith("refused"):
            print(f"  {path:<58} refused", flush=True)
            self.notes[(path, " ".join(words))] = "refused"
            return None
        entry = json.loads(done.stdout.strip().splitlines()[-1])
        self.show(entry)
        self.keep((path, entry["kernel"], entry["shape"], 1), entry)
        return entry

    def eigen(self, kernel, m, n, k):
        self.peer("eigen", [f"{self.args.work}/eigen_bench", kernel, str(m), str(n), str(k)], {})

    def ggml(self, kernel, m, n, k, experts=()):
        tail = [str(v) for v in (m, n, k, *experts)]
        program = f"{self.args.work}/ggml_bench"
        for type_name in ("q8_0", "bf16"):
            self.peer(f"ggml-cpu {type_name}", [program, kernel, "CPU", type_name] + tail, {})
        settings = list(VULKAN_SETTINGS) if self.args.all_settings else ["512"]
        for type_name in filter(None, self.args.vulkan_types.split(",")):
            for name in settings:
                self.peer(f"ggml-vulkan {type_name}", [program, kernel, "Vulkan0", type_name] + tail,
                          VULKAN_SETTINGS[name])

    def attention(self, kernel, sizes, winners):
        """ggml's attention, flash and as products. `winners` holds by form what was fastest at a smaller case of the
        kernel: if it is empty, all types and settings run and fill it, otherwise only those."""
        program, tail = f"{self.args.work}/ggml_attention_bench", [str(v) for v in sizes]
        for form in ("flash", "mul_mat"):
            for type_name in ATTENTION_TYPES:
                self.peer(f"ggml-cpu {type_name} {form}", [program, kernel, "CPU", type_name, form] + tail, {})
            if not self.args.vulkan_types:
                continue
            settings = VULKAN_SETTINGS if self.args.all_settings else ATTENTION_SETTINGS
            choices = [winners[form]] if form in winners else [(t, s) for t in ATTENTION_TYPES for s in settings]
            found = []
            for type_name, name in choices:
                entry = self.peer(f"ggml-vulkan {type_name} {form}",
                                  [program, kernel, "Vulkan0", type_name, form] + tail, VULKAN_SETTINGS[name])
                if entry:
                    found.append((entry["median_ns"], (type_name, name)))
            if found:
                winners[form] = min(found)[1]

    def show(self, e):
        print(f"  {e['kernel'] + ' ' + e['shape']:<58} {e['path'].split(',')[0]:<24} {e['median_ns'] * 1e-3:>11.1f} us"
              f" {e['tflops'] * 1e3:>8.2f} GFLOP/s {e['gb_per_s']:>7.2f} GB/s", flush=True)

    def fail(self, what, done):
        text = (done.stdout + done.stderr).strip().splitlines()
        print(f"  {what}: FAILED ({done.returncode}) {text[-1] if text else ''}", flush=True)
        self.notes[what] = f"failed ({done.returncode})"

    def get(self, path, kernel, shape, threads=1):
        return self.entries.get((path, kernel, shape, threads))

    def fastest(self, prefix, kernel, shape, form=""):
        found = [e for (path, k, s, _), e in self.entries.items()
                 if path.startswith(prefix) and path.endswith(form) and (k, s) == (kernel, shape)]
        return min(found, key=lambda e: e["median_ns"], default=None)


def gemm_shape(m, n, k):
    return f"m={m},n={n},k={k}"


def decode_shape(tokens, kv_len, cache=None):
    return f"tokens={tokens},kv_len={kv_len},heads=128,rank=512,rope=64" + (f",cache={cache}" if cache else "")


def prefill_shape(q_begin, q_len):
    return f"q_begin={q_begin},q_len={q_len},heads=128,nope=128,rope=64,v=128"


def plan(args):
    """The groups and the (n, k, m) that --only leaves."""
    words = [w for w in args.only.split(",") if w]
    groups = [w for w in words if "=" not in w] or [g for g in GROUPS if g != "cores" or os.cpu_count() > 1]
    unknown = set(groups) - set(GROUPS)
    if unknown:
        sys.exit(f"compare: --only takes {', '.join(GROUPS)} and m=, n=, k= values, got {', '.join(sorted(unknown))}")
    want = {}
    for word in words:
        if "=" in word:
            name, value = word.split("=")
            want.setdefault(name, set()).add(int(value))
    fits = lambda name, value: name not in want or value in want[name]
    sizes = [(n, k) for n, k in V3 if fits("n", n) and fits("k", k)]
    ms = [m for m in ((16, 128) if args.quick else (16, 128, 512)) if fits("m", m)]
    return groups, sizes, ms


def measure(run, groups, sizes, ms):
    if "matvec" in groups:
        for n, k in sizes:
            run.hadal("fp8_gemm", gemm_shape(1, n, k))
            run.eigen("fp8_gemm", 1, n, k)
            run.ggml("fp8_gemm", 1, n, k)
    for m in ms:
        for n, k in sizes:
            shape = gemm_shape(m, n, k)
            if "dense" in groups:
                run.hadal("fp8_gemm", shape)
            if "bf16" in groups:
                run.hadal("bf16_gemm", shape)
            if "dense" in groups or "bf16" in groups:
                run.eigen("fp8_gemm" if "dense" in groups else "bf16_gemm", m, n, k)
            if "dense" in groups:
                run.ggml("fp8_gemm", m, n, k)
            if "cores" in groups and m >= 128:
                run.hadal("fp8_gemm", shape)
                run.hadal("fp8_gemm", shape, threads=2, core=run.args.two_cores)
    if "grouped" in groups:
        run.hadal("fp8_gemm", gemm_shape(32, 4096, 7168))
        run.hadal("fp8_grouped_gemm", GROUPED + "even")
        run.hadal("fp8_grouped_gemm", GROUPED + "random")
        run.hadal("fp8_grouped_gemm", GROUPED + "random,form=dense")
        run.ggml("fp8_grouped_gemm", 128, 4096, 7168, (32, 8))
    if "rows" in groups:
        for bench, shape in ROWS:
            run.hadal(bench, shape)
    if "mla" in groups:
        measure_mla(run, sizes, run.args.quick)


def measure_mla(run, sizes, quick):
    for n, k in sizes:  # the rate that attention is measured by
        if not run.get("hadal", "fp8_gemm", gemm_shape(128, n, k)):
            run.hadal("fp8_gemm", gemm_shape(128, n, k))
    decode, growth, prefill = (DECODE[:2], GROWTH[:3], PREFILL[:1]) if quick else (DECODE, GROWTH, PREFILL)
    winners = {}  # by keys: of a batch only what won at one token runs, its time is that many times as long
    for tokens, kv_len in decode:
        for cache in CACHES:
            run.hadal("mla_decode", decode_shape(tokens, kv_len, cache))
        run.attention("mla_decode", (tokens, kv_len, 128, 512, 64), winners.setdefault(kv_len, {}))
    for kv_len in growth:
        for cache in CACHES:
            run.hadal("mla_decode", decode_shape(1, kv_len, cache))
    winners = {}
    for q_begin, q_len in prefill:
        run.hadal("mla_prefill", prefill_shape(q_begin, q_len))
        run.attention("mla_prefill", (q_begin, q_len, 128, 128, 64, 128), winners)


def mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def line(what, ratios, bar, stretch=None, each=None):
    """A row of the table: geometric mean, smallest, bar (0: none); `each` is the least that one shape may have."""
    if not ratios:
        return None
    if not bar:
        return f"| {what} | {mean(ratios):.3g} | {min(ratios):.3g} | {len(ratios)} | | | |"
    met = mean(ratios) >= bar and (each is None or min(ratios) >= each)
    goal = f"{stretch:g}" if stretch else ""
    return f"| {what} | {mean(ratios):.3g} | {min(ratios):.3g} | {len(ratios)} | {bar:g} | {goal} | {'yes' if met else 'NO'} |"


def mla_rows(run, sizes, ratios):
    rows = []
    gemm = [run.get("hadal", "fp8_gemm", gemm_shape(128, n, k)) for n, k in sizes]
    gemm = [e["tflops"] for e in gemm if e]
    kinds = [("mla_decode", f", {cache} rows", [decode_shape(t, kv, cache) for t, kv in DECODE], 20, 40) for cache in CACHES]
    kinds.append(("mla_prefill", "", [prefill_shape(*p) for p in PREFILL if p[0] == 0], 10, 20))
    kinds.append(("mla_prefill", " behind cached keys", [prefill_shape(*p) for p in PREFILL if p[0]], 0, 0))  # no bar
    for kernel, what, shapes, bar, stretch in kinds:
        rates = [e["tflops"] / mean(gemm) for e in (run.get("hadal", kernel, s) for s in shapes) if e and gemm]
        rows.append(line(f"{kernel}{what} / fp8_gemm m=128, rate", rates, 0.5 if bar else 0, 0.8 if bar else 0, 0.5 if bar else 0))
        for form, goals in (("flash", (bar, stretch, bar)), ("mul_mat", (0,))):
            other = lambda s: run.fastest("ggml-vulkan", kernel, s.split(",cache=")[0], form)
            rows.append(line(f"{kernel}{what} / ggml-vulkan {form}", ratios(kernel, shapes, other), *goals))
        cpu = lambda s: run.fastest("ggml-cpu", kernel, s.split(",cache=")[0])
        rows.append(line(f"{kernel}{what} / ggml-cpu, its fastest", ratios(kernel, shapes, cpu), 0))
    shapes = [decode_shape(t, kv, "fp8") for t, kv in DECODE]
    bf16 = lambda s: run.get("hadal", "mla_decode", s.replace("fp8", "bf16"))
    rows.append(line("mla_decode, FP8 rows / bf16 rows", ratios("mla_decode", shapes, bf16), 1, 1.3, 1))
    for cache in CACHES:
        found = {kv: run.get("hadal", "mla_decode", decode_shape(1, kv, cache)) for kv in GROWTH}
        per_key = {kv: e["median_ns"] / kv for kv, e in found.items() if e}
        if len(per_key) > 1:
            growth = max(per_key.values()) / min(per_key.values())
            rows.append(f"| mla_decode, {cache} rows, ns per key, most / least | {growth:.3g} | | {len(per_key)} | 1.1 | | "
                        f"{'yes' if growth <= 1.1 else 'NO'} |")
            print(f"ns per key, {cache}: " + ", ".join(f"{kv}: {ns:.0f}" for kv, ns in per_key.items()))
    return rows


def table(run, groups, sizes, ms):
    rows = []

    def ratios(kernel, shapes, other):
        pairs = [(run.get("hadal", kernel, s), other(s)) for s in shapes]
        return [b["median_ns"] / a["median_ns"] for a, b in pairs if a and b]

    eigen = lambda s: run.get("eigen", "fp8_gemm", s) or run.get("eigen", "bf16_gemm", s)
    roof = {name: run.get("roofline", name, "") for name in ("copy", "read", "fma")}
    for m in ms:
        shapes = [gemm_shape(m, n, k) for n, k in sizes]
        bar, stretch = EIGEN_BARS[m]
        if "dense" in groups:
            rows.append(line(f"fp8_gemm m={m} / eigen", ratios("fp8_gemm", shapes, eigen), bar, stretch, bar / 2))
            for type_name in ("q8_0", "bf16"):
                cpu = lambda s: run.get(f"ggml-cpu {type_name}", "fp8_gemm", s)
                rows.append(line(f"fp8_gemm m={m} / ggml-cpu {type_name}", ratios("fp8_gemm", shapes, cpu),
                                 CPU_BARS[type_name, m], 2))
            vulkan = lambda s: run.fastest("ggml-vulkan", "fp8_gemm", s)
            rows.append(line(f"fp8_gemm m={m} / ggml-vulkan, its fastest", ratios("fp8_gemm", shapes, vulkan), 10, 20, 10))
        if "bf16" in groups:
            rows.append(line(f"bf16_gemm m={m} / eigen", ratios("bf16_gemm", shapes, eigen), 0.6, 0.9))
    if "matvec" in groups:
        shapes = [gemm_shape(1, n, k) for n, k in sizes]
        found = [(run.get("hadal", "fp8_gemm", gemm_shape(1, n, k)), n * k) for n, k in sizes]
        shares = [b / e["median_ns"] / roof["read"]["gb_per_s"] for e, b in found if e]
        rows.append(line("fp8_gemm m=1, weight bytes / read bandwidth", shares, 0.18, 0.28))
        rows.append(line("fp8_gemm m=1 / eigen", ratios("fp8_gemm", shapes, eigen), 0))
        vulkan = lambda s: run.fastest("ggml-vulkan", "fp8_gemm", s)
        rows.append(line("fp8_gemm m=1 / ggml-vulkan, its fastest", ratios("fp8_gemm", shapes, vulkan), 10, 20, 10))
    if "grouped" in groups:
        dense = run.get("hadal", "fp8_gemm", gemm_shape(32, 4096, 7168))
        for routing in ("even", "random"):
            e = run.get("hadal", "fp8_grouped_gemm", GROUPED + routing)
            if e and dense:
                rows.append(line(f"grouped, {routing} routing / dense at 32 rows", [e["tflops"] / dense["tflops"]], 0.85, 0.95))
        sums = lambda s: run.get("hadal", "fp8_grouped_gemm", s + ",form=dense")  # same rows, one product per expert
        rows.append(line("grouped, random routing / sum of dense products of its rows (no bar)",
                         ratios("fp8_grouped_gemm", [GROUPED + "random"], sums), 0))
        for peer in ("ggml-cpu q8_0", "ggml-cpu bf16"):
            cpu = lambda s: run.get(peer, "fp8_grouped_gemm", s)
            rows.append(line(f"grouped, even routing / {peer}", ratios("fp8_grouped_gemm", [GROUPED + "even"], cpu), 1.3, 2))
        vulkan = lambda s: run.fastest("ggml-vulkan", "fp8_grouped_gemm", s)
        rows.append(line("grouped / ggml-vulkan", ratios("fp8_grouped_gemm", [GROUPED + "even"], vulkan), 10, 20))
    if "rows" in groups:
        for (path, kernel, shape, _), e in run.entries.items():
            if path == "hadal" and "4096" in shape and ("rows=4096" in shape or "tokens=4096" in shape):
                rows.append(line(f"{kernel} {shape} / copy bandwidth", [e["gb_per_s"] / roof["copy"]["gb_per_s"]], 0.6, 0.8))
    if "mla" in groups:
        rows += mla_rows(run, sizes, ratios)
    two = run.get("roofline", "fma", "", 2)
    if "cores" in groups and two:
        gain = two["tflops"] / roof["fma"]["tflops"]
        rows.append(f"| fma shader, two cores / one | {gain:.3g} | | 1 | | | |")
        for m in (m for m in ms if m >= 128):
            found = [(run.get("hadal", "fp8_gemm", gemm_shape(m, n, k)), run.get("hadal", "fp8_gemm", gemm_shape(m, n, k), 2))
                     for n, k in sizes]
            shares = [a["median_ns"] / b["median_ns"] / gain for a, b in found if a and b and b["median_ns"] >= 2e6]
            rows.append(line(f"fp8_gemm m={m}, gain of the second core / fma's", shares, 0.9, each=0.9))
    print()
    for name, e in roof.items():
        if e:
            print(f"{name}: {e['gb_per_s']:.1f} GB/s" if name != "fma" else f"{name}: {e['tflops'] * 1e3:.1f} GFLOP/s")
    print("\n| hadal / peer | geometric mean | least | cases | bar | stretch | met |\n|---|---|---|---|---|---|---|")
    print("\n".join(r for r in rows if r))
    for what, note in run.notes.items():
        print(f"{note}: {' '.join(what) if isinstance(what, tuple) else what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="Debian testing root of the peers (compare.sh sets it)")
    parser.add_argument("--work", default="/var/tmp/hadal-peers", help="where the peers' programs are in the root")
    parser.add_argument("--build", default="build", help="hadal's build folder")
    parser.add_argument("--json", default="bench/results/compare.json")
    parser.add_argument("--only", default="", help="comma list of " + ", ".join(GROUPS) + " and of m=, n=, k= values")
    parser.add_argument("--quick", action="store_true", help="few samples, no m=512, ggml-vulkan with q8_0 only")
    parser.add_argument("--rounds", type=int, default=1, help="repeat everything; the fastest round counts, for all")
    parser.add_argument("--add", metavar="FILE", help="count an earlier run's JSON as a round of this one")
    parser.add_argument("--core", type=int, default=1, help="the core of every one-thread run")
    parser.add_argument("--two-cores", default="0,1", help="the cores of the two-thread runs")
    parser.add_argument("--width", default="512", help="LP_NATIVE_VECTOR_WIDTH of hadal's runs")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time per case")
    parser.add_argument("--samples", type=int, default=10, help="least samples per case")
    parser.add_argument("--vulkan-types", default="q8_0,bf16,f16", help="weight types of ggml-vulkan; empty: none")
    parser.add_argument("--all-settings", action="store_true", help="ggml-vulkan also at 256 bits, with f16, as shipped")
    parser.add_argument("--own-driver", action="store_true", help="hadal on the system's driver, not the sysroot's")
    parser.add_argument("--bench-options", default="", help="more options for hadal's benches")
    parser.add_argument("--wrap", default="", help="words before every timed command, e.g. 'flock FILE nice -n -20'")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.samples = 0.3, 3
        args.vulkan_types = "q8_0" if args.vulkan_types else ""
    if not args.root:
        parser.error("--root is needed: start bench/compare.sh")
    groups, sizes, ms = plan(args)
    run = Runner(args)
    if args.add:
        run.add(args.add)
    for _ in range(args.rounds):
        measure(run, groups, sizes, ms)
    table(run, groups, sizes, ms)
    peaks = run.get("roofline", "fma", ""), run.get("roofline", "copy", ""), run.get("roofline", "read", "")
    for (path, _, _, _), e in run.entries.items():
        if e["roofline_share"] is None and all(peaks):  # peers measure no roofline of their own
            least = max(e["tflops"] / peaks[0]["tflops"], e["gb_per_s"] / max(p["gb_per_s"] for p in peaks[1:]))
            e["roofline_share"] = round(least, 5)
    os.makedirs(os.path.dirname(args.json) or ".", exist_ok=True)
    with open(args.json, "w") as file:
        file.write("[" + ",\n ".join(json.dumps(e) for e in run.entries.values()) + "]\n")
    print(f"\nwritten: {args.json}")
    return 1 if any(note.startswith("failed") for note in run.notes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
