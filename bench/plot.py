#!/usr/bin/env python3
"""Draws a JSON file of bench/compare.sh (or of any bench): on the left every kernel under the rooflines that were
measured beside it, on the right hadal and its peers by m. Needs matplotlib (python3-matplotlib).

    bench/plot.py bench/results/compare.json bench/results/compare_mla.json -o bench/results/compare.svg
"""

import argparse
import json
import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PEERS = [  # path prefix, label, colour
    ("hadal", "hadal", "#0b6e99"),
    ("eigen", "Eigen, float", "#d08c2f"),
    ("ggml-cpu bf16", "ggml CPU, bf16", "#8f9aa3"),
    ("ggml-cpu q8_0", "ggml CPU, q8_0", "#5d6770"),
    ("ggml-vulkan", "ggml Vulkan, its fastest", "#b4413c"),
]
MARKS = {"fp8_gemm": "o", "bf16_gemm": "s", "fp8_grouped_gemm": "D", "mla_decode": "^", "mla_prefill": "v"}


def peer_of(entry):
    for prefix, *_ in PEERS[1:]:
        if entry["path"].startswith(prefix):
            return prefix
    return "another" if entry["path"].startswith("ggml") else "hadal"


def rooflines(axis, roof, entries):
    """Rates over intensity, under the roofs; cases without arithmetic have no place here."""
    bandwidth, peak = max(roof.get("read", 0), roof.get("copy", 0)), roof["fma"]
    found = [e for e in entries if peer_of(e) == "hadal" and e["tflops"] > 0 and e["gb_per_s"] > 0]
    intensity = [e["tflops"] * 1e3 / e["gb_per_s"] for e in found]
    low, high = min(intensity) / 2, max(intensity) * 2
    ridge = peak / bandwidth
    axis.plot([low, ridge, high], [low * bandwidth, peak, peak], color="#222", linewidth=1.2)
    axis.text(high, peak * 1.08, f"multiply-add {peak:.0f} GFLOP/s", ha="right", fontsize=7)
    x = math.sqrt(low * min(ridge, high))
    axis.text(x, x * bandwidth * 1.15, f"memory {bandwidth:.0f} GB/s", ha="right", fontsize=7)
    kernels = sorted({e["kernel"] for e in found}, key=lambda k: (k not in MARKS, k))
    for kernel in kernels:
        points = [(i, e["tflops"] * 1e3) for i, e in zip(intensity, found) if e["kernel"] == kernel]
        axis.plot(*zip(*points), MARKS.get(kernel, "x"), markersize=4, label=kernel, alpha=0.85)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("FLOP per byte")
    axis.set_ylabel("GFLOP/s")
    axis.legend(fontsize=6, loc="lower right", frameon=False)
    axis.set_title("Kernels under the measured roofs", fontsize=9, loc="left")


def comparison(axis, entries):
    """Geometric mean over the shapes that every engine ran, by m."""
    rates = {}  # m -> peer -> shape -> GFLOP/s
    for e in entries:
        m = re.match(r"m=(\d+),", e["shape"])
        if e["kernel"] == "fp8_gemm" and m:
            of_peer = rates.setdefault(int(m.group(1)), {}).setdefault(peer_of(e), {})
            of_peer[e["shape"]] = max(of_peer.get(e["shape"], 0), e["tflops"] * 1e3)
    ms = sorted(m for m in rates if len(rates[m]) > 1)
    if not ms:
        axis.set_axis_off()
        return
    for i, (peer, label, colour) in enumerate(PEERS):
        xs, ys = [], []
        for position, m in enumerate(ms):
            shapes = set.intersection(*(set(s) for s in rates[m].values()))
            values = [rates[m].get(peer, {}).get(s, 0) for s in shapes]
            if not values or not all(values):
                continue
            xs.append(position + (i - 2) * 0.16)
            ys.append(math.exp(sum(map(math.log, values)) / len(values)))
        axis.bar(xs, ys, 0.15, color=colour, label=label)
        for x, y in zip(xs, ys):
            axis.text(x, y * 1.05, f"{y:.0f}" if y >= 10 else f"{y:.1f}", ha="center", fontsize=6)
    axis.set_yscale("log")
    axis.set_xticks(range(len(ms)), [f"m = {m}" for m in ms])
    axis.set_ylabel("GFLOP/s, geometric mean")
    axis.legend(fontsize=6, loc="upper left", frameon=False)
    axis.set_ylim(top=axis.get_ylim()[1] * 2)
    axis.set_title("fp8_gemm and peers at DeepSeek-V3's shapes", fontsize=9, loc="left")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="+")
    parser.add_argument("-o", "--output", default="bench/results/compare.svg")
    args = parser.parse_args()
    entries = [e for name in args.json for e in json.load(open(name))]
    threads = min((e["threads"] for e in entries), default=0)
    entries = [e for e in entries if e["threads"] == threads]  # two-core runs have roofs of their own
    roof = {}
    for e in entries:
        if e["path"] == "roofline":
            roof[e["kernel"]] = max(roof.get(e["kernel"], 0), e["gb_per_s"], e["tflops"] * 1e3)
    entries = [e for e in entries if e["path"] != "roofline"]
    if "fma" not in roof or not entries:
        parser.error("no roofline or no case in the file")
    plt.rcParams.update({"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "hadal",
                         "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    rooflines(axes[0], roof, entries)
    comparison(axes[1], entries)
    hadal = next(e for e in entries if peer_of(e) == "hadal")
    where = hadal["device"] + (f", {threads} thread{'s' if threads > 1 else ''}" if threads else "")
    figure.suptitle(f"{where}; {hadal['driver']}", fontsize=7, x=0.01, ha="left")
    figure.savefig(args.output, metadata={"Date": None} if args.output.endswith("svg") else None)


main()
