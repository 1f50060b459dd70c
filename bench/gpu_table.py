#!/usr/bin/env python3
"""Prints the table of bench/gpu_report.sh from the benches' JSON files."""

import json
import os
import sys


def dims(shape):
    return dict(part.split("=") for part in shape.split(","))


def main():
    entries, variant = [], {}
    names = iter(sys.argv[1:])
    for name in names:
        is_variant = name == "--variant"  # the next file: the same shapes by other paths
        name = next(names) if is_variant else name
        if not os.path.exists(name) or not os.path.getsize(name):
            continue
        if is_variant:
            variant |= {e["shape"]: e for e in json.load(open(name)) if e["path"] != "roofline"}
        else:
            entries += json.load(open(name))
    roof = {}
    for e in entries:
        if e["path"] == "roofline":  # of several measurements the best is the limit
            roof[e["kernel"]] = max(roof.get(e["kernel"], 0), e["gb_per_s"], e["tflops"] if e["kernel"] == "fma" else 0)
    by_shape = {}
    for e in entries:
        if e["path"] != "roofline":
            peer = e["path"] == "torch bf16"
            by_shape.setdefault(e["shape"], {})["torch" if peer else e["kernel"]] = e
    if not roof:
        print("\nNo bench ran.")
        return
    device = next(e for e in entries if e["path"] == "roofline")
    print(f"\n{device['device']}, {device['driver']}. Copy {roof['copy']:.0f} GB/s (read + write), read {roof['read']:.0f} GB/s, "
          f"multiply-add shader {roof['fma']:.2f} TFLOP/s. Cold caches, medians.\n")
    print("| m | n | k | fp8_gemm us | TFLOP/s | GB/s | of copy | roofline | bf16_gemm TFLOP/s | GB/s | vendor bf16 TFLOP/s |"
          " fp8 / vendor | error/bound | path | variant us | path |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    dense = {s: v for s, v in by_shape.items() if s.startswith("m=") and "fp8_gemm" in v}
    for shape, row in sorted(dense.items(), key=lambda item: [int(v) for v in dims(item[0]).values()]):
        d, e, b, t = dims(shape), row["fp8_gemm"], row.get("bf16_gemm"), row.get("torch")
        cells = [d["m"], d["n"], d["k"], f"{e['median_ns'] * 1e-3:.1f}", f"{e['tflops']:.3g}", f"{e['gb_per_s']:.0f}",
                 f"{e['gb_per_s'] / roof['copy']:.2f}", f"{e['roofline_share']:.2f}",
                 f"{b['tflops']:.3g}" if b else "", f"{b['gb_per_s']:.0f}" if b else "",
                 f"{t['tflops']:.3g}" if t else "", f"{e['tflops'] / t['tflops']:.2f}" if t else "",
                 f"{e['worst_error_over_bound']:.3f}", e["path"]]
        v = variant.get(shape)  # named only where it is another path
        differs = v is not None and v["path"] != e["path"]
        cells += [f"{v['median_ns'] * 1e-3:.1f}", v["path"]] if differs else ["", ""]
        print("| " + " | ".join(cells) + " |")
    grouped = [(s, v["fp8_grouped_gemm"]) for s, v in by_shape.items() if "fp8_grouped_gemm" in v]
    if grouped:
        grouped_table(grouped, dense)
    attention = [(s, v[k]) for s, v in by_shape.items() for k in ("mla_decode", "mla_prefill") if k in v]
    if attention:
        attention_table(attention, variant, roof)


def attention_table(attention, variant, roof):
    """Prefill counts the keys' and queries' bytes once, so that bandwidth means something for decode only. The portable path stands
    beside the choice's where that is another."""
    print("\n| | heads | us | TFLOP/s | GB/s | of copy | roofline | error/bound | path | portable us | times |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for shape, e in attention:
        d = dims(shape)
        what = (f"decode {d['tokens']} x {d['kv_len']} keys, {d['cache']} rows" if e["kernel"] == "mla_decode"
                else f"prefill {d['q_len']} after {d['q_begin']}")
        v = variant.get(shape)
        differs = v is not None and v["path"] != e["path"]
        portable = f"{v['median_ns'] * 1e-3:.1f} | {v['median_ns'] / e['median_ns']:.1f}" if differs else " | "
        print(f"| {what} | {d['heads']} | {e['median_ns'] * 1e-3:.1f} | {e['tflops']:.3g} | {e['gb_per_s']:.0f} | "
              f"{e['gb_per_s'] / roof['copy']:.2f} | {e['roofline_share']:.2f} | {e['worst_error_over_bound']:.3f} | {e['path']} | "
              f"{portable} |")


def grouped_table(grouped, dense):
    print("\n| experts | rows each | n | k | grouped us | TFLOP/s | GB/s | / dense at the same rows | error/bound | path |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for shape, e in grouped:
        d = dims(shape)
        rows = int(d["tokens"]) * int(d["top_k"]) // int(d["used"])
        same = dense.get(f"m={rows},n={d['n']},k={d['k']}")
        share = f"{e['tflops'] / same['fp8_gemm']['tflops']:.2f}" if same else ""
        print(f"| {d['used']} | {rows} | {d['n']} | {d['k']} | {e['median_ns'] * 1e-3:.1f} | {e['tflops']:.3g} | "
              f"{e['gb_per_s']:.0f} | {share} | {e['worst_error_over_bound']:.3f} | {e['path']} |")


main()
