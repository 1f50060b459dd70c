"""Kernels through the package, against formulas.py."""

import os
import threading
import unittest

import numpy as np

import hadal
from formulas import E4M3, attend, dequantize, nearest_codes, product_bound


class Kernels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gpu = hadal.Context(os.environ.get("HADAL_TEST_DEVICE"))

    @classmethod
    def tearDownClass(cls):
        cls.gpu.close()

    def setUp(self):
        self.random = np.random.default_rng(7)

    def normals(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def quantized(self, rows, k):
        return self.gpu.fp8_quantize(self.normals(rows, k))

    def test_context_names_its_device(self):
        self.assertIn((self.gpu.device.index, self.gpu.device.name), [(d.index, d.name) for d in hadal.devices()])
        self.assertIn(self.gpu.device.name, repr(self.gpu))
        self.assertIn(self.gpu.device.driver, repr(self.gpu))

    def test_quantize(self):
        x = self.normals(5, 300) * np.float32(3)
        x[2] = 0
        x[3, 7] = 1e4
        padded = np.zeros((5, 384))
        padded[:, :300] = np.abs(x)
        largest = padded.reshape(5, 3, 128).max(axis=2)
        for scale_format in ("fp32", "ue8m0"):
            with self.subTest(scale_format):
                codes, scales = self.gpu.fp8_quantize(x, scale_format)
                self.assertEqual(codes.dtype, np.uint8)
                self.assertEqual(codes.shape, (5, 300))
                wanted = np.maximum(largest, 1e-4) / 448
                if scale_format == "ue8m0":
                    np.testing.assert_array_equal(scales, 2.0 ** np.ceil(np.log2(wanted)))
                else:
                    np.testing.assert_allclose(scales, wanted, rtol=2.0 ** -22)
                # Each code is a nearest one, but for the rounding of x / scale.
                given = x / np.repeat(scales.astype(np.float64), 128, axis=1)[:, :300]
                distance = np.abs(given - E4M3[codes])
                slack = 4 * 2.0 ** -23 * np.abs(given)
                self.assertTrue((distance <= nearest_codes(x, scales) + slack).all())

    def check_product(self, product, a, a_scales, b, b_scales, scale_rows):
        x, w = dequantize(a, a_scales), dequantize(b, b_scales, scale_rows)
        self.assertEqual(product.dtype, np.float32)
        bound = product_bound(a.shape[1], np.abs(x) @ np.abs(w).T)
        self.assertTrue((np.abs(product - x @ w.T) <= bound).all())

    def test_gemm(self):
        for m, n, k in ((1, 70, 300), (7, 130, 256), (33, 17, 129)):
            a, a_scales = self.quantized(m, k)
            b, by_row = self.quantized(n, k)
            self.check_product(self.gpu.fp8_gemm(a, a_scales, b, by_row), a, a_scales, b, by_row, 1)
            blocks = self.random.uniform(0.5, 2, (-(-n // 128), by_row.shape[1])).astype(np.float32)
            self.check_product(self.gpu.fp8_gemm(a, a_scales, b, blocks), a, a_scales, b, blocks, 128)

    def test_gemm_without_rows(self):
        b, b_scales = self.quantized(5, 128)
        empty = self.gpu.fp8_gemm(np.zeros((0, 128), np.uint8), np.zeros((0, 1), np.float32), b, b_scales)
        self.assertEqual(empty.shape, (0, 5))

    def test_grouped_gemm(self):
        experts, n, k = 5, 70, 200
        counts = [3, 0, 40, 1, 0]
        rows = sum(counts)
        a, a_scales = self.quantized(rows, k)
        parts = [self.quantized(n, k) for _ in range(experts)]
        b = np.stack([codes for codes, _ in parts])
        b_scales = np.stack([scales for _, scales in parts])
        product = self.gpu.grouped_gemm(a, a_scales, b, b_scales, counts)
        begin = 0
        for expert, count in enumerate(counts):
            part = slice(begin, begin + count)
            self.check_product(product[part], a[part], a_scales[part], b[expert], b_scales[expert], 1)
            begin += count
        # An expert's rows are those of its own GEMM, to the bit.
        np.testing.assert_array_equal(product[3:43], self.gpu.fp8_gemm(a[3:43], a_scales[3:43], b[2], b_scales[2]))

    def check_close(self, result, expected, bound):
        self.assertEqual(result.dtype, np.float32)
        self.assertEqual(result.shape, expected.shape)
        self.assertLess(np.abs(result - expected).max(), bound)

    def test_mla_decode(self):
        tokens, heads, rank, rope, pages = 3, 5, 64, 16, 6
        q_latent, q_pe = self.normals(tokens, heads, rank), self.normals(tokens, heads, rope)
        cache = self.normals(64 * pages, rank + rope)
        tables = np.array([[4, 0, 2], [1, 5, 0], [3, 3, 3]])
        kv_lens = np.array([130, 65, 1])
        result = self.gpu.mla_decode(q_latent, q_pe, cache, tables, kv_lens, 0.07)
        expected = np.empty((tokens, heads, rank))
        for t in range(tokens):
            positions = np.arange(kv_lens[t])
            rows = cache[tables[t][positions // 64] * 64 + positions % 64].astype(np.float64)
            queries = np.concatenate([q_latent[t], q_pe[t]], axis=1)
            expected[t] = attend(queries @ rows.T * 0.07, rows[:, :rank], np.ones((heads, len(rows)), bool))
        # Scores of 80 terms, |q|.|c| * scale below 30: an error of e in a score moves a weight by a factor 1 + e,
        # and the result by at most 2 e max|c|; e = (80 + 8) * 2^-23 * 30.
        self.check_close(result, expected, 2 * 88 * 2.0 ** -23 * 30 * np.abs(cache).max())

    def test_mla_prefill(self):
        kv_rows, heads, nope, rope, v, begin = 90, 3, 32, 16, 24, 20
        q_len = kv_rows - begin
        q, kv = self.normals(q_len, heads, nope + rope), self.normals(kv_rows, heads, nope + v)
        k_pe = self.normals(kv_rows, rope)
        result = self.gpu.mla_prefill(q, kv, k_pe, 0.1, q_begin=begin)
        expected = np.empty((q_len, heads, v))
        seen = np.arange(kv_rows)[None, :] <= begin + np.arange(q_len)[:, None]
        for h in range(heads):
            keys = np.concatenate([kv[:, h, :nope], k_pe], axis=1).astype(np.float64)
            expected[:, h] = attend(q[:, h] @ keys.T * 0.1, kv[:, h, nope:].astype(np.float64), seen)
        self.check_close(result, expected, 2 * 56 * 2.0 ** -23 * 30 * np.abs(kv).max())

    def test_calls_repeat_bitwise_and_from_threads(self):
        a, a_scales = self.quantized(9, 256)
        b, b_scales = self.quantized(40, 256)
        expected = self.gpu.fp8_gemm(a, a_scales, b, b_scales)
        results = [None] * 4

        def work(i):
            results[i] = self.gpu.fp8_gemm(a, a_scales, b, b_scales)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            np.testing.assert_array_equal(result, expected)

    def test_what_is_refused(self):
        a, a_scales = self.quantized(3, 256)
        b, b_scales = self.quantized(4, 256)
        f32 = np.float32
        table, lens = np.zeros((1, 1), np.uint32), np.ones(1, np.uint32)
        refusals = [
            ("x must be float32, got int64", lambda: self.gpu.fp8_quantize(np.ones((2, 128), np.int64))),
            ("x must have 2 dimensions, got 1", lambda: self.gpu.fp8_quantize(np.ones(128, f32))),
            ("scale_format must be fp32 or ue8m0, got 'fp8'", lambda: self.gpu.fp8_quantize(np.ones((1, 8), f32), "fp8")),
            ("a must be uint8, got float32", lambda: self.gpu.fp8_gemm(a_scales, a_scales, b, b_scales)),
            ("b must have shape (4, 256), got (4, 128)", lambda: self.gpu.fp8_gemm(a, a_scales, b[:, :128], b_scales)),
            ("a_scales must have shape (3, 2), got (3, 1)", lambda: self.gpu.fp8_gemm(a, a_scales[:, :1], b, b_scales)),
            ("b_scales must have shape (1, 2) or (4, 2), got (3, 2)",
             lambda: self.gpu.fp8_gemm(a, a_scales, b, b_scales[:3])),
            ("counts must sum to the 3 rows of a, got 4",
             lambda: self.gpu.grouped_gemm(a, a_scales, b[None], b_scales[None], [4])),
            ("counts must be 0 to 2^32 - 1, got -1 to 4",
             lambda: self.gpu.grouped_gemm(a, a_scales, b[[0, 1]][:, None], b_scales[[0, 1]][:, None], [-1, 4])),
            ("kv_lens must be at most the table's 64 positions, got 65", lambda: self.gpu.mla_decode(
                np.ones((1, 1, 8), f32), np.ones((1, 1, 4), f32), np.ones((64, 12), f32), table, lens * 65, 1.0)),
            ("block_tables must name pages below 1, got 1", lambda: self.gpu.mla_decode(
                np.ones((1, 1, 8), f32), np.ones((1, 1, 4), f32), np.ones((64, 12), f32), table + 1, lens, 1.0)),
            ("q_begin must be 0 to 1, got 2", lambda: self.gpu.mla_prefill(
                np.ones((2, 1, 12), f32), np.ones((3, 1, 16), f32), np.ones((3, 4), f32), 1.0, q_begin=2)),
        ]
        for text, function in refusals:
            with self.subTest(text), self.assertRaises(hadal.InvalidArgument) as caught:
                function()
            self.assertIn(text, str(caught.exception))
            self.assertIsInstance(caught.exception, ValueError)
            self.assertEqual(caught.exception.status, "InvalidArgument")
        # hadal's own refusals come with its message.
        with self.assertRaises(hadal.Error) as caught:
            self.gpu.mla_decode(np.ones((1, 1, 6), f32), np.ones((1, 1, 4), f32), np.ones((64, 10), f32), table, lens, 1.0)
        self.assertTrue(str(caught.exception).startswith("mla_decode: rank"), caught.exception)

    def test_devices_by_name_and_by_nothing(self):
        for device in ("no such device", 1000):
            with self.assertRaises(hadal.NoDevice):
                hadal.Context(device)
        with hadal.Context(self.gpu.device.index) as gpu:
            gpu.fp8_quantize(np.ones((1, 128), np.float32))
        with self.assertRaisesRegex(hadal.InvalidArgument, "context: is closed"):
            gpu.fp8_quantize(np.ones((1, 128), np.float32))
        gpu.close()


if __name__ == "__main__":
    unittest.main()
