// Cases of mla_decode that its tests share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "gpu.h"
#include "hadal/mla_decode.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_cache_row.h"
#include "hadal/reference/mla_decode.h"
#include "random.h"

namespace hadal::test {

// Tokens with pages of their own, scattered over the cache. Rows of no token, and table entries
// past a token's end, are poison.
struct MlaDecodeProblem {
  MlaDecodeShape shape;
  std::vector<float> q_latent, q_pe, cache;
  std::vector<uint32_t> tables, kv_lens;
  std::vector<uint8_t> fp8_cache;  // instead of cache: in_fp8()
  float largest_scale = 0.0f;

  MlaDecodeProblem(std::vector<uint32_t> lens, uint32_t heads, uint32_t rank, uint32_t rope,
                   uint32_t seed, float q_scale = 1.0f)
      : kv_lens(std::move(lens)) {
    Random random(seed);
    uint32_t pages = 1, longest = 0;
    for (uint32_t n : kv_lens) pages += ceil_div(n, 64), longest = std::max(longest, n);
    shape =
        MlaDecodeShape::packed(uint32_t(kv_lens.size()), heads, rank, rope, longest, pages * 64);
    shape.scale = 1.0f / std::sqrt(float(rank));
    shape.row_stride += seed % 2 * 4, shape.table_stride += 1;
    shape.q_latent_head_stride += seed % 3, shape.q_pe_head_stride += 3;
    shape.o_head_stride += seed % 4;
    shape.q_latent_row_stride = heads * shape.q_latent_head_stride;
    shape.q_pe_row_stride = heads * shape.q_pe_head_stride;
    shape.o_row_stride = heads * shape.o_head_stride;
    q_latent = random.normals(kv_lens.size() * shape.q_latent_row_stride, q_scale);
    q_pe = random.normals(kv_lens.size() * shape.q_pe_row_stride, q_scale);
    std::vector<uint32_t> order(pages);
    std::iota(order.begin(), order.end(), 0u);
    for (uint32_t i = pages; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    cache.assign(size_t(shape.cache_rows) * shape.row_stride, NAN);
    tables.assign(kv_lens.size() * shape.table_stride, 0x7fffffffu);
    size_t next = 0;
    for (size_t t = 0; t < kv_lens.size(); ++t) {
      for (uint32_t j = 0; j < kv_lens[t]; ++j) {
        uint32_t& page = tables[t * shape.table_stride + j / 64];
        if (j % 64 == 0) page = order[next++];
        float* row = &cache[(size_t(page) * 64 + j % 64) * shape.row_stride];
        for (uint32_t c = 0; c < rank + rope; ++c) {  // values that bfloat16 holds
          row[c] = reference::bf16_decode(reference::bf16_encode(random.normal()));
        }
      }
    }
  }
  // The same with an FP8 cache; rows of no token stay poison (0xff is NaN in every part of a row).
  [[nodiscard]] MlaDecodeProblem in_fp8(ScaleFormat format = ScaleFormat::kFp32) const {
    MlaDecodeProblem p = *this;
    const size_t stride =
        reference::fp8_cache_row_bytes(shape.rank, shape.rope) + shape.row_stride / 4 % 2 * 16;
    p.fp8_cache.assign(shape.cache_rows * stride, 0xff);
    for (size_t t = 0; t < kv_lens.size(); ++t) {
      for (uint32_t j = 0; j < kv_lens[t]; ++j) {
        const size_t slot = size_t(tables[t * shape.table_stride + j / 64]) * 64 + j % 64;
        const auto row = reference::Fp8CacheRow::quantize(&cache[slot * shape.row_stride],
                                                          shape.rank, shape.rope, format);
        row.write(&p.fp8_cache[slot * stride]);
        for (float scale : row.scales) p.largest_scale = std::max(p.largest_scale, scale);
      }
    }
    p.shape.cache_format = CacheFormat::kFp8, p.shape.row_stride = uint32_t(stride);
    return p;
  }
  // The same with queries that bfloat16 holds, as it holds the cache: no half of theirs rounds.
  [[nodiscard]] MlaDecodeProblem in_halves() const {
    MlaDecodeProblem p = *this;
    for (std::vector<float>* q : {&p.q_latent, &p.q_pe}) {
      for (float& v : *q) v = reference::bf16_decode(reference::bf16_encode(v));
    }
    return p;
  }
  // Token t alone, in the same cache.
  [[nodiscard]] MlaDecodeProblem token(uint32_t t) const {
    const auto row = [t](const auto& all, uint32_t stride) {
      return std::decay_t<decltype(all)>(all.begin() + long(t) * stride,
                                         all.begin() + long(t + 1) * stride);
    };
    MlaDecodeProblem one = *this;
    one.shape.tokens = 1;
    one.q_latent = row(q_latent, shape.q_latent_row_stride);
    one.q_pe = row(q_pe, shape.q_pe_row_stride);
    one.tables = row(tables, shape.table_stride);
    one.kv_lens = {kv_lens[t]};
    one.shape.max_kv_len = kv_lens[t];
    return one;
  }
};

struct MlaDecodeOutputs {
  std::vector<float> o, lse;
};

inline reference::AttentionResult expected_of(const MlaDecodeProblem& p) {
  return reference::mla_decode(p.shape, {p.q_latent.data(), p.q_pe.data(), p.cache.data(),
                                         p.tables.data(), p.kv_lens.data(), p.fp8_cache.data()});
}

// The problem by one path, o without its padding.
inline MlaDecodeOutputs run(const MlaDecodeProblem& p, const MlaDecodeConfig& config,
                            bool want_lse = true) {
  const MlaDecodeShape& s = p.shape;
  GpuCase gpu(*device());
  std::vector<uint16_t> codes;
  for (float v : p.cache) codes.push_back(reference::bf16_encode(v));
  GuardedBuffer& q_latent = gpu.input(p.q_latent);
  GuardedBuffer& q_pe = gpu.input(p.q_pe);
  GuardedBuffer& cache = s.cache_format == CacheFormat::kF32    ? gpu.input(p.cache)
                         : s.cache_format == CacheFormat::kBf16 ? gpu.input(codes)
                                                                : gpu.input(p.fp8_cache);
  GuardedBuffer& tables = gpu.input(p.tables);
  GuardedBuffer& kv_lens = gpu.input(p.kv_lens);
  GuardedBuffer& o = gpu.output(uint64_t{s.tokens} * s.o_row_stride * element_bytes(s.o_type));
  GuardedBuffer& lse = gpu.output(uint64_t{s.tokens} * s.heads * 4);
  GuardedBuffer& scratch = gpu.output(mla_decode_scratch_bytes(s));
  Result<MlaDecode> kernel = MlaDecode::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  if (!kernel.ok()) return {};
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, s,
        {q_latent.address(), q_pe.address(), cache.address(), tables.address(), kv_lens.address(),
         o.address(), want_lse ? lse.address() : 0, scratch.address()});
  });
  MlaDecodeOutputs result{{}, gpu.values<float>(lse)};
  std::vector<float> all;
  if (s.o_type == ElementType::kF32) all = gpu.values<float>(o);
  if (s.o_type == ElementType::kBf16) {
    for (uint16_t code : gpu.values<uint16_t>(o)) all.push_back(reference::bf16_decode(code));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (i % s.o_row_stride % s.o_head_stride < s.rank) {
      result.o.push_back(all[i]);
    } else {
      EXPECT_TRUE(std::isnan(all[i])) << "padding written: " << i;
    }
  }
  return result;
}

}  // namespace hadal::test
