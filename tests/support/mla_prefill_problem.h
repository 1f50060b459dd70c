// Cases of mla_prefill that its tests share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "gpu.h"
#include "hadal/mla_prefill.h"
#include "hadal/reference/formats.h"
#include "hadal/types.h"
#include "random.h"
#include "same_bits.h"

namespace hadal::test {

struct MlaPrefillProblem {
  MlaPrefillShape shape;
  std::vector<float> q, kv, k_pe;  // with the shape's strides, padding NaN

  // Operands of a sequence whose queries begin at q_begin; `pad` widens every stride.
  MlaPrefillProblem(uint32_t q_begin, uint32_t q_len, uint32_t heads, uint32_t nope, uint32_t rope,
                    uint32_t v, uint32_t seed, uint32_t pad = 0, float q_scale = 1.0f) {
    Random random(seed);
    shape = MlaPrefillShape::packed(q_begin, q_len, heads, nope, rope, v);
    shape.scale = 1.0f / std::sqrt(float(std::max(nope + rope, 1u)));
    shape.q_head_stride += pad, shape.q_row_stride = heads * shape.q_head_stride + pad;
    shape.kv_row_stride += pad, shape.k_pe_stride += pad;
    shape.o_head_stride += pad / 2, shape.o_row_stride = heads * shape.o_head_stride;
    const uint32_t keys = shape.kv_rows;
    q = random.normals(size_t(q_len) * shape.q_row_stride, q_scale);
    kv = padded(random, keys, heads * (nope + v), shape.kv_row_stride);
    k_pe = padded(random, keys, rope, shape.k_pe_stride);
  }
  static std::vector<float> padded(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<float> values(rows * stride, NAN);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % stride < width) values[i] = random.normal();
    }
    return values;
  }
  // The same with numbers that halves hold.
  [[nodiscard]] MlaPrefillProblem in_halves() const {
    MlaPrefillProblem p = *this;
    for (std::vector<float>* values : {&p.q, &p.kv, &p.k_pe}) {
      for (float& v : *values) {
        if (!std::isnan(v)) v = reference::bf16_decode(reference::bf16_encode(v));
      }
    }
    return p;
  }
  // The queries [begin, begin + count) alone.
  [[nodiscard]] MlaPrefillProblem rows(uint32_t begin, uint32_t count) const {
    MlaPrefillProblem part = *this;
    part.shape.q_begin += begin, part.shape.q_len = count;
    part.q.assign(q.begin() + long(begin) * shape.q_row_stride,
                  q.begin() + long(begin + count) * shape.q_row_stride);
    return part;
  }
};

// o [q_len, heads, v] by one path, in calls of `chunk` keys each (0: one call).
inline std::vector<float> run_path(const MlaPrefillProblem& p, const MlaPrefillConfig& config,
                                   uint32_t chunk) {
  const MlaPrefillShape& s = p.shape;
  GpuCase gpu(*device());
  GuardedBuffer& q = gpu.input(p.q);
  GuardedBuffer& kv = gpu.input(p.kv);
  GuardedBuffer& k_pe = gpu.input(p.k_pe);
  GuardedBuffer& o = gpu.output(uint64_t{s.q_len} * s.o_row_stride * 4);
  GuardedBuffer& state = gpu.output(uint64_t{s.q_len} * s.heads * 8);
  GuardedBuffer& scratch = gpu.output(mla_prefill_scratch_bytes(s));
  Result<MlaPrefill> kernel = MlaPrefill::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  if (!kernel.ok()) return {};
  gpu.run([&](Recorder& recorder) -> Status {
    for (uint32_t begin = 0; begin == 0 || begin < s.kv_rows; begin += chunk) {
      MlaPrefillShape call = s;
      call.kv_begin = begin;
      call.kv_rows = chunk ? std::min(chunk, s.kv_rows - begin) : s.kv_rows;
      call.first = begin == 0, call.last = begin + call.kv_rows == s.kv_rows;
      if (!call.first) recorder.barrier();
      HADAL_TRY(kernel->record(recorder, call,
                               {q.address(), kv.address() + uint64_t{begin} * s.kv_row_stride * 4,
                                k_pe.address() + uint64_t{begin} * s.k_pe_stride * 4, o.address(),
                                state.address(), scratch.address()}));
      if (!chunk) break;
    }
    return {};
  });
  std::vector<float> result;
  const std::vector<float> all = gpu.values<float>(o);
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t in_head = i % s.o_row_stride % s.o_head_stride;
    if (in_head < s.v) {
      result.push_back(all[i]);
    } else {
      EXPECT_TRUE(std::isnan(all[i])) << "padding written: " << i;
    }
  }
  return result;
}

// Sequences side by side in one call: whole, a chunk in the middle of its keys, without queries,
// without keys, outside the operands. Each is its own call's bits; nothing else is written.
// `batched` and `alone` choose the configurations of the two.
using MlaPrefillChoice = std::function<MlaPrefillConfig(const MlaPrefillShape&)>;
inline void expect_a_batch_is_its_sequences(const MlaPrefillChoice& batched,
                                            const MlaPrefillChoice& alone_choice) {
  struct Part {
    uint32_t q_begin, q_len, kv_begin, kv_rows;
    bool first, last;
  };
  const std::vector<Part> parts = {{0, 40, 0, 40, true, true},       {130, 7, 0, 137, true, true},
                                   {5, 0, 0, 5, true, true},         {64, 1, 0, 65, true, true},
                                   {200, 33, 64, 128, false, false}, {9, 3, 0, 0, true, true},
                                   {300, 12, 0, 64, true, false}};
  const uint32_t heads = 3, nope = 16, rope = 8, v = 24;
  std::vector<MlaPrefillSequence> list;
  MlaPrefillProblem all(0, 0, heads, nope, rope, v, 50);
  MlaPrefillShape& shape = all.shape;
  shape.kv_rows = 0;
  for (const Part& p : parts) {
    MlaPrefillSequence entry;
    entry.q_row = shape.q_len, entry.q_len = p.q_len, entry.q_begin = p.q_begin;
    entry.kv_row = shape.kv_rows, entry.kv_rows = p.kv_rows, entry.kv_begin = p.kv_begin;
    entry.flags = (p.first ? entry.kFirst : 0) | (p.last ? entry.kLast : 0);
    list.push_back(entry);
    shape.q_len += p.q_len, shape.kv_rows += p.kv_rows;
    shape.max_q_len = std::max(shape.max_q_len, p.q_len);
  }
  for (int bad = 0; bad < 4; ++bad) {
    MlaPrefillSequence entry;
    entry.q_len = 4, entry.kv_rows = 4;
    if (bad == 0) entry.q_row = shape.q_len - 3;
    if (bad == 1) entry.q_row = 0xfffffffeu;
    if (bad == 2) entry.kv_row = shape.kv_rows - 3;
    if (bad == 3) entry.kv_begin = 1;
    list.push_back(entry);
  }
  shape.sequences = uint32_t(list.size());
  Random random(51);
  all.q = random.normals(size_t(shape.q_len) * shape.q_row_stride);
  all.kv = random.normals(size_t(shape.kv_rows) * shape.kv_row_stride);
  all.k_pe = random.normals(size_t(shape.kv_rows) * shape.k_pe_stride);
  const std::vector<float> o_before = random.normals(size_t(shape.q_len) * shape.o_row_stride);
  std::vector<float> state_before = random.normals(size_t(shape.q_len) * heads * 2);
  for (size_t i = 1; i < state_before.size(); i += 2) {
    state_before[i] = std::fabs(state_before[i]) + 1.0f;
  }
  // Runs `call` and returns o and state.
  const auto outputs =
      [&](const MlaPrefillChoice& choose,
          const std::function<Status(Recorder&, const MlaPrefill&, MlaPrefillArgs)>& call,
          const MlaPrefillShape& s) {
        GpuCase gpu(*device());
        Result<MlaPrefill> kernel = MlaPrefill::create(*device(), choose(s));
        EXPECT_TRUE(kernel.ok()) << kernel.status().message();
        MlaPrefillArgs args;
        args.q = gpu.input(all.q).address(), args.kv = gpu.input(all.kv).address();
        args.k_pe = gpu.input(all.k_pe).address();
        GuardedBuffer& o = gpu.input(o_before);
        GuardedBuffer& state = gpu.input(state_before);
        args.o = o.address(), args.state = state.address();
        args.scratch = gpu.output(mla_prefill_scratch_bytes(s)).address();
        args.sequences = gpu.input(list).address();
        gpu.run([&](Recorder& recorder) { return call(recorder, *kernel, args); });
        return std::pair(gpu.values<float>(o), gpu.values<float>(state));
      };
  const auto batch = outputs(
      batched,
      [&](Recorder& recorder, const MlaPrefill& kernel, const MlaPrefillArgs& args) {
        return kernel.record(recorder, shape, args);
      },
      shape);
  std::vector<float> o = o_before, state = state_before;
  for (size_t i = 0; i < parts.size(); ++i) {
    MlaPrefillShape one = shape;
    one.sequences = 0, one.q_len = list[i].q_len, one.kv_rows = list[i].kv_rows;
    one.q_begin = parts[i].q_begin, one.kv_begin = parts[i].kv_begin;
    one.first = parts[i].first, one.last = parts[i].last;
    const auto alone = outputs(
        alone_choice,
        [&](Recorder& recorder, const MlaPrefill& kernel, MlaPrefillArgs args) {
          args.q += uint64_t{list[i].q_row} * shape.q_row_stride * 4;
          args.o += uint64_t{list[i].q_row} * shape.o_row_stride * 4;
          args.state += uint64_t{list[i].q_row} * heads * 8;
          args.kv += uint64_t{list[i].kv_row} * shape.kv_row_stride * 4;
          args.k_pe += uint64_t{list[i].kv_row} * shape.k_pe_stride * 4;
          return kernel.record(recorder, one, args);
        },
        one);
    const auto take = [&](std::vector<float>& to, const std::vector<float>& from, size_t stride) {
      std::copy_n(from.begin() + long(list[i].q_row * stride), list[i].q_len * stride,
                  to.begin() + long(list[i].q_row * stride));
    };
    take(o, alone.first, shape.o_row_stride);
    take(state, alone.second, size_t{heads} * 2);
  }
  EXPECT_TRUE(same_bits(batch.first, o, v)) << batched(shape).to_string();
  EXPECT_TRUE(same_bits(batch.second, state, 2)) << batched(shape).to_string();
}

}  // namespace hadal::test
