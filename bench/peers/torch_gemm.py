#!/usr/bin/env python3
"""The vendor library's bf16 product, through PyTorch, at the shapes given as m=,n=,k= words; a JSON list of
entries of the benches' form on standard output, an empty one where there is no PyTorch or no GPU.
Cold caches: 256 MiB are rewritten before every sample, as hadal's benches do with --cold."""

import json
import sys


def main():
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or not torch.cuda.is_available():
        print("[]")
        return
    entries = []
    evict = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for shape in sys.argv[1:]:
        m, n, k = (int(part.split("=")[1]) for part in shape.split(","))
        a = torch.rand(m, k, device="cuda", dtype=torch.bfloat16) * 2 - 1
        b = torch.rand(n, k, device="cuda", dtype=torch.bfloat16) * 2 - 1
        d = torch.matmul(a, b.t())
        exact = a[:1].double() @ b.double().t()
        magnitude = a[:1].double().abs() @ b.double().abs().t()
        # float sums, one rounding to bfloat16
        bound = k * 2.0**-23 * magnitude + 2.0**-8 * (exact.abs() + k * 2.0**-23 * magnitude)
        worst = ((d[:1].double() - exact).abs() / bound).max().item()
        if not worst <= 1:
            sys.exit(f"torch_gemm: wrong result at {shape}")
        ns = []
        for _ in range(23):
            evict.fill_(1)
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            torch.matmul(a, b.t(), out=d)
            end.record()
            torch.cuda.synchronize()
            ns.append(start.elapsed_time(end) * 1e6)
        ns = sorted(ns[3:])
        median = ns[len(ns) // 2]
        entries.append({
            "kernel": "bf16_gemm", "shape": shape, "path": "torch bf16", "device": torch.cuda.get_device_name(),
            "driver": f"PyTorch {torch.__version__}", "threads": 0, "median_ns": median, "p10_ns": ns[2],
            "p90_ns": ns[17], "tflops": 2.0 * m * n * k / median * 1e-3,
            "gb_per_s": 2.0 * (m * k + n * k + m * n) / median, "roofline_share": None,
            "worst_error_over_bound": worst, "samples": len(ns), "cold": True})
    print(json.dumps(entries))


main()
