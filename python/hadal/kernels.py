"""Kernels on NumPy arrays: quantise, block-scaled GEMM, grouped GEMM, multi-head latent attention.

Arrays go to the device and come back; for repeated work on device memory use the C ABI (hadal/hadal.h).
"""

import ctypes
import threading
from ctypes import byref, c_void_p

import numpy as np

from . import _native
from ._native import Range, call, host, kernels
from .devices import choose

GROUP = 128  # channels that share a scale
PAGE = 64    # rows of a cache page
_SCALE_FORMATS = {"fp32": 0, "ue8m0": 1}


def _refuse(text):
    raise _native.InvalidArgument(text, "InvalidArgument")


def _blocks(k):
    return -(-k // GROUP)


def _array(kernel, name, value, dtype, dims):
    """The argument as a dense array of that type and number of dimensions; never another type's bits."""
    array = np.asarray(value)
    if array.dtype != dtype:
        if not (dtype == np.float32 and array.dtype in (np.float64, np.float16)) and not (
                dtype == np.uint32 and array.dtype.kind in "iu"):
            _refuse(f"{kernel}: {name} must be {np.dtype(dtype).name}, got {array.dtype.name}")
        if dtype == np.uint32 and array.size and (array.min() < 0 or array.max() > 0xffffffff):
            _refuse(f"{kernel}: {name} must be 0 to 2^32 - 1, got {array.min()} to {array.max()}")
    if array.ndim != dims:
        _refuse(f"{kernel}: {name} must have {dims} dimensions, got {array.ndim}")
    if array.size and max(array.shape) >= 1 << 31:
        _refuse(f"{kernel}: {name} must have dimensions below 2^31, got {array.shape}")
    return np.ascontiguousarray(array, dtype)


def _shape(kernel, name, array, shape):
    if array.shape != tuple(shape):
        _refuse(f"{kernel}: {name} must have shape {tuple(shape)}, got {array.shape}")


def _padded_codes(codes):
    """Rows of codes at a stride that is a multiple of 16 bytes; zeros between."""
    k = codes.shape[-1]
    stride = -(-k // 16) * 16
    if stride == k:
        return codes
    padded = np.zeros((*codes.shape[:-1], stride), np.uint8)
    padded[..., :k] = codes
    return padded


class _Call:
    """What one call puts on the device: memory, plans, commands; all of it goes at the end."""

    def __init__(self, context):
        self._context = context
        self._memory = []
        self._plans = []

    def __enter__(self):
        self._context._lock.acquire()
        if self._context._host is None:
            self._context._lock.release()
            _refuse("context: is closed")
        return self

    def __exit__(self, *exception):
        for plan in self._plans:
            kernels.hadal_plan_destroy(plan)
        for memory in self._memory:
            host.hadal_host_free(self._context._host, byref(memory))
        self._context._lock.release()

    def _allocate(self, size):
        memory = _native.HostMemory()
        call(host.hadal_host_allocate, self._context._host, max(int(size), 1), byref(memory))
        self._memory.append(memory)
        return memory

    def input(self, array):
        """The array's bytes on the device; an absent operand without any."""
        if array.nbytes == 0:
            return Range()
        memory = self._allocate(array.nbytes)
        ctypes.memmove(memory.mapped, array.ctypes.data, array.nbytes)
        return Range(address=memory.address, bytes=array.nbytes)

    def output(self, shape, dtype):
        """Memory for a result: an operand, and the array to read when the commands ran."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        memory = self._allocate(size)
        view = np.frombuffer((ctypes.c_char * max(size, 1)).from_address(memory.mapped), np.uint8)[:size]
        return Range(address=memory.address, bytes=size), view.view(dtype).reshape(shape)

    def scratch(self, size, indirect=False):
        if size == 0:
            return Range()
        memory = self._allocate(size)
        if indirect:  # by buffer: Vulkan takes no address there
            return Range(buffer=memory.buffer, bytes=size)
        return Range(address=memory.address, bytes=size)

    def plan(self, kernel, desc):
        plan = c_void_p()
        call(getattr(kernels, f"hadal_{kernel}_plan"), self._context._context, byref(desc), byref(plan))
        self._plans.append(plan)
        return plan

    def run(self, *records):
        """Records (kernel, plan, args) with barriers between, submits, waits."""
        commands = c_void_p()
        call(host.hadal_host_begin, self._context._host, byref(commands))
        for i, (kernel, plan, args) in enumerate(records):
            if i:
                call(kernels.hadal_barrier_record, self._context._context, commands)
            call(getattr(kernels, f"hadal_{kernel}_record"), plan, commands, byref(args))
        call(host.hadal_host_submit, self._context._host)


class Context:
    """A device for kernels. Thread-safe; calls run one after another.

    device: index or part of a name (hadal.devices()); None: the best one.
    """

    def __init__(self, device=None):
        self._host = None
        self._lock = threading.Lock()
        self.device = choose(device)
        made = c_void_p()
        call(host.hadal_host_open, self.device.index, byref(made))
        self._host = made
        self._context = host.hadal_host_context(made)

    def close(self):
        """Gives the device back; done at the end of a with block, too."""
        with self._lock:
            made, self._host = self._host, None
            if made is not None:
                host.hadal_host_close(made)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        if getattr(self, "_host", None) is not None:
            self.close()

    def __repr__(self):
        return f"<hadal.Context on {self.device.name} ({self.device.driver})>"

    def fp8_quantize(self, x, scale_format="fp32"):
        """Rows [rows, k] to e4m3 codes (uint8 [rows, k]) and scales (float32 [rows, ceil(k/128)]).

        x is about code * scale of its group of 128 channels. scale_format "ue8m0": powers of two.
        """
        name = "fp8_quantize"
        x = _array(name, "x", x, np.float32, 2)
        if scale_format not in _SCALE_FORMATS:
            _refuse(f"{name}: scale_format must be fp32 or ue8m0, got {scale_format!r}")
        rows, k = x.shape
        stride = -(-k // 16) * 16
        with _Call(self) as c:
            plan = c.plan(name, _native.QuantizeDesc(rows=rows, k=k, scale_format=_SCALE_FORMATS[scale_format]))
            q, codes = c.output((rows, stride), np.uint8)
            scale, scales = c.output((rows, _blocks(k)), np.float32)
            c.run((name, plan, _native.QuantizeArgs(rows=rows, x=c.input(x), q=q, scale=scale)))
            return codes[:, :k].copy(), scales.copy()

    @staticmethod
    def _scale_rows(name, b_scales, n, k):
        """Rows of b that share a row of scales, by the shape of these."""
        for rows in (GROUP, 1):
            if b_scales.shape[-2:] == (-(-n // rows), _blocks(k)):
                return rows
        return _refuse(f"{name}: b_scales must have shape {(_blocks(n), _blocks(k))} or {(n, _blocks(k))}, "
                       f"got {b_scales.shape[-2:]}")

    def fp8_gemm(self, a, a_scales, b, b_scales):
        """a b^T: codes a [m, k] with scales [m, ceil(k/128)] by codes b [n, k], to float32 [m, n].

        b_scales: [ceil(n/128), ceil(k/128)], a checkpoint's, or [n, ceil(k/128)], of fp8_quantize.
        """
        name = "fp8_gemm"
        a, b = _array(name, "a", a, np.uint8, 2), _array(name, "b", b, np.uint8, 2)
        a_scales = _array(name, "a_scales", a_scales, np.float32, 2)
        b_scales = _array(name, "b_scales", b_scales, np.float32, 2)
        (m, k), n = a.shape, b.shape[0]
        _shape(name, "b", b, (n, k))
        _shape(name, "a_scales", a_scales, (m, _blocks(k)))
        rows = self._scale_rows(name, b_scales, n, k)
        with _Call(self) as c:
            plan = c.plan(name, _native.GemmDesc(m=m, n=n, k=k, b_scale_rows=rows))
            d, product = c.output((m, n), np.float32)
            c.run((name, plan, _native.GemmArgs(
                m=m, a=c.input(_padded_codes(a)), a_scale=c.input(a_scales), b=c.input(_padded_codes(b)),
                b_scale=c.input(b_scales), d=d)))
            return product.copy()

    def grouped_gemm(self, a, a_scales, b, b_scales, counts):
        """The linear layer of all experts: rows of a lie sorted by expert, counts[e] of each.

        a [rows, k], a_scales [rows, ceil(k/128)]; b [experts, n, k], b_scales [experts, ...] as fp8_gemm's;
        to float32 [rows, n], row r by the weight of its expert.
        """
        name = "fp8_grouped_gemm"
        a, b = _array(name, "a", a, np.uint8, 2), _array(name, "b", b, np.uint8, 3)
        a_scales = _array(name, "a_scales", a_scales, np.float32, 2)
        b_scales = _array(name, "b_scales", b_scales, np.float32, 3)
        counts = _array(name, "counts", counts, np.uint32, 1)
        (rows, k), (experts, n) = a.shape, b.shape[:2]
        _shape(name, "b", b, (experts, n, k))
        _shape(name, "a_scales", a_scales, (rows, _blocks(k)))
        _shape(name, "counts", counts, (experts,))
        if b_scales.shape[0] != experts:
            _refuse(f"{name}: b_scales must have {experts} experts, got {b_scales.shape[0]}")
        scale_rows = self._scale_rows(name, b_scales, n, k)
        ends = np.cumsum(counts, dtype=np.int64)
        if (ends[-1] if experts else 0) != rows:
            _refuse(f"{name}: counts must sum to the {rows} rows of a, got {ends[-1] if experts else 0}")
        if rows == 0 or n == 0:
            return np.zeros((rows, n), np.float32)
        with _Call(self) as c:
            desc = _native.GroupedDesc(rows=rows, experts=experts, n=n, k=k, b_scale_rows=scale_rows)
            plan = c.plan(name, desc)
            tiling = _native.GroupedTiling()
            call(kernels.hadal_grouped_gemm_tiling, plan, byref(tiling))
            tiles_desc = _native.TilesDesc(experts=experts, rows=rows, tile_m=tiling.tile_m, command_count=1)
            tiles_desc.groups_x[0] = tiling.groups_x
            tiles_plan = c.plan("moe_tiles", tiles_desc)
            tiles = c.scratch(16 * tiling.max_tiles)
            commands = c.scratch(12, indirect=True)
            weights, scales = c.input(_padded_codes(b)), c.input(b_scales)
            table = np.empty((experts, 2), np.uint64)
            table[:, 0] = weights.address + np.arange(experts, dtype=np.uint64) * np.uint64(weights.bytes // experts)
            table[:, 1] = scales.address + np.arange(experts, dtype=np.uint64) * np.uint64(scales.bytes // experts)
            d, product = c.output((rows, n), np.float32)
            c.run(("moe_tiles", tiles_plan, _native.TilesArgs(segments=c.input(ends.astype(np.uint32)), tiles=tiles,
                                                              commands=commands)),
                  (name, plan, _native.GroupedArgs(rows=rows, a=c.input(_padded_codes(a)), a_scale=c.input(a_scales),
                                                   expert_table=c.input(table), tiles=tiles, indirect=commands, d=d)))
            return product.copy()

    def mla_decode(self, q_latent, q_pe, cache, block_tables, kv_lens, scale):
        """Absorbed attention of single tokens over a paged latent cache.

        q_latent [tokens, heads, rank], q_pe [tokens, heads, rope]; cache float32 [pages * 64, rank + rope], rows
        [latent | rotated key]; block_tables [tokens, pages of each]: position p of token t is cache row
        block_tables[t, p // 64] * 64 + p % 64; kv_lens [tokens]: positions that each sees.
        Returns o [tokens, heads, rank]: sums of latents, weighted by softmax((q_latent . c + q_pe . k) * scale).
        """
        name = "mla_decode"
        q_latent = _array(name, "q_latent", q_latent, np.float32, 3)
        q_pe = _array(name, "q_pe", q_pe, np.float32, 3)
        cache = _array(name, "cache", cache, np.float32, 2)
        block_tables = _array(name, "block_tables", block_tables, np.uint32, 2)
        kv_lens = _array(name, "kv_lens", kv_lens, np.uint32, 1)
        (tokens, heads, rank), rope = q_latent.shape, q_pe.shape[-1]
        _shape(name, "q_pe", q_pe, (tokens, heads, rope))
        _shape(name, "cache", cache, (cache.shape[0], rank + rope))
        _shape(name, "block_tables", block_tables, (tokens, block_tables.shape[1]))
        _shape(name, "kv_lens", kv_lens, (tokens,))
        if tokens == 0:
            return np.zeros((0, heads, rank), np.float32)
        longest, pages = int(kv_lens.max()), block_tables.shape[1]
        if longest > PAGE * pages:
            _refuse(f"{name}: kv_lens must be at most the table's {PAGE * pages} positions, got {longest}")
        used = np.arange(pages)[None, :] < (-(-kv_lens.astype(np.int64) // PAGE))[:, None]
        highest = int(block_tables[used].max(initial=0))
        if longest and (highest + 1) * PAGE > cache.shape[0]:
            _refuse(f"{name}: block_tables must name pages below {cache.shape[0] // PAGE}, got {highest}")
        with _Call(self) as c:
            plan = c.plan(name, _native.DecodeDesc(
                tokens=tokens, heads=heads, rank=rank, rope=rope, max_kv_len=max(longest, 1), cache_rows=cache.shape[0],
                row_stride=rank + rope, table_stride=pages, scale=scale))
            o, result = c.output((tokens, heads, rank), np.float32)
            c.run((name, plan, _native.DecodeArgs(
                tokens=tokens, q_latent=c.input(q_latent), q_pe=c.input(q_pe), cache=c.input(cache),
                block_tables=c.input(block_tables), kv_lens=c.input(kv_lens), o=o,
                scratch=c.scratch(kernels.hadal_plan_scratch_bytes(plan)))))
            return result.copy()

    def mla_prefill(self, q, kv, k_pe, scale, q_begin=0):
        """Causal attention of one sequence over expanded latents.

        q [q_len, heads, nope + rope]; kv [kv_rows, heads, nope + v]; k_pe [kv_rows, rope]; query i stands at
        position q_begin + i and sees keys up to its own. Returns [q_len, heads, v].
        """
        name = "mla_prefill"
        q, kv = _array(name, "q", q, np.float32, 3), _array(name, "kv", kv, np.float32, 3)
        k_pe = _array(name, "k_pe", k_pe, np.float32, 2)
        (q_len, heads, width), rope = q.shape, k_pe.shape[1]
        nope = width - rope
        if nope < 0:
            _refuse(f"{name}: q must have at least k_pe's {rope} channels, got {width}")
        v = kv.shape[2] - nope
        if v < 0:
            _refuse(f"{name}: kv must have at least {nope} channels, got {kv.shape[2]}")
        _shape(name, "kv", kv, (kv.shape[0], heads, nope + v))
        _shape(name, "k_pe", k_pe, (kv.shape[0], rope))
        if not 0 <= q_begin < 1 << 31 or q_begin + q_len > kv.shape[0]:
            _refuse(f"{name}: q_begin must be 0 to {kv.shape[0] - q_len}, got {q_begin}")
        if q_len == 0:
            return np.zeros((0, heads, v), np.float32)
        with _Call(self) as c:
            plan = c.plan(name, _native.PrefillDesc(q_len=q_len, heads=heads, nope=nope, rope=rope, v=v, scale=scale))
            o, result = c.output((q_len, heads, v), np.float32)
            c.run((name, plan, _native.PrefillArgs(
                q_len=q_len, q_begin=q_begin, kv_rows=kv.shape[0], flags=3, q=c.input(q), kv=c.input(kv),
                k_pe=c.input(k_pe), o=o, scratch=c.scratch(kernels.hadal_plan_scratch_bytes(plan)))))
            return result.copy()
