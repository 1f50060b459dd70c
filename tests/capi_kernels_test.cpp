// Every kernel of the C ABI beside the C++ class that it calls, on one lent device: the same
// operands, then the same bytes in every buffer. What the classes compute is the other suites'
// business; here it is that no member of a desc or args goes astray, so all strides and sizes
// differ.
#include <gtest/gtest.h>

#include <memory>

#include "hadal/bf16_gemm.h"
#include "hadal/bf16_grouped_gemm.h"
#include "hadal/device.h"
#include "hadal/embedding.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/fp8_quantize.h"
#include "hadal/logit_adjust.h"
#include "hadal/mla_absorb.h"
#include "hadal/mla_cache_read.h"
#include "hadal/mla_cache_write.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"
#include "hadal/moe_gate.h"
#include "hadal/moe_permute.h"
#include "hadal/moe_tiles.h"
#include "hadal/recorder.h"
#include "hadal/rms_norm.h"
#include "hadal/rope.h"
#include "hadal/sample.h"
#include "hadal/swiglu.h"
#include "hadal/top_logprobs.h"
#include "support/capi.h"
#include "support/random.h"

namespace hadal::test {
namespace {

class CapiKernelsGpu : public CapiTest {
 protected:
  void SetUp() override {
    CapiTest::SetUp();
    if (!alive_) return;
    BorrowedDevice handles;
    handles.get_instance_proc_addr = instance_.get;
    handles.instance = instance_.instance;
    handles.physical_device = device_.physical;
    handles.device = device_.device;
    handles.create_info = &device_.info;
    handles.constants = constants_->address;
    Result<std::unique_ptr<Device>> lent = Device::borrow(handles);
    ASSERT_TRUE(lent.ok()) << lent.status().message();
    cpp_ = std::move(lent).value();
  }
  void TearDown() override {
    cpp_.reset();
    CapiTest::TearDown();
  }
  const Caps& caps() { return cpp_->caps(); }

  host_buffer* floats(size_t count) { return buffer_of(random_.normals(count)); }
  host_buffer* bf16s(size_t count) {
    std::vector<uint16_t> values;
    for (float f : random_.normals(count)) {
      uint32_t bits;
      std::memcpy(&bits, &f, 4);
      values.push_back(uint16_t(bits >> 16));
    }
    return buffer_of(values);
  }
  host_buffer* codes(size_t count) { return buffer_of(random_.e4m3_codes(count)); }
  host_buffer* indices(size_t count, uint32_t below) {
    std::vector<uint32_t> values(count);
    for (uint32_t& v : values) v = random_.below(below);
    return buffer_of(values);
  }
  host_buffer* output(size_t bytes) { return buffer(bytes, 0xff); }
  static hadal_range at(const host_buffer* b) { return host_range(b); }

  // Runs both on the same content and demands the same bytes, and that something was written.
  template <class C, class Cpp>
  void same_bytes(C c, Cpp cpp) {
    std::vector<std::vector<std::byte>> before, after;
    for (const host_buffer& b : buffers_) before.push_back(read<std::byte>(&b));
    VkCommandBuffer commands = host_begin(&device_, device_.pool);
    ASSERT_EQ(c(commands), HADAL_OK) << error_.message;
    host_submit(&device_, device_.queue, commands);
    for (host_buffer& b : buffers_) after.push_back(read<std::byte>(&b));
    EXPECT_NE(before, after) << "nothing was written";
    size_t i = 0;
    for (host_buffer& b : buffers_) {
      std::memcpy(b.mapped, before[i].data(), before[i].size()), ++i;
    }
    commands = host_begin(&device_, device_.pool);
    {
      Result<Recorder> recorder = Recorder::borrow(*cpp_, commands);
      ASSERT_TRUE(recorder.ok());
      const Status status = cpp(*recorder);
      ASSERT_TRUE(status.ok()) << status.message();
    }
    host_submit(&device_, device_.queue, commands);
    i = 0;
    for (host_buffer& b : buffers_) {
      EXPECT_EQ(read<std::byte>(&b), after[i]) << "buffer " << i;
      ++i;
    }
  }

  Random random_{11};
  std::unique_ptr<Device> cpp_;
};

// The class for a shape, made and called as the model does.
#define HADAL_TEST_RECORD(Class, choose, shape, ...)                               \
  [&](Recorder& r) -> Status {                                                     \
    HADAL_ASSIGN(const Class kernel, Class::create(*cpp_, choose(shape, caps()))); \
    return kernel.record(r, shape, __VA_ARGS__);                                   \
  }

TEST_F(CapiKernelsGpu, Fp8Quantize) {
  auto d = sized<hadal_fp8_quantize_desc>();
  d.rows = 9, d.k = 300, d.x_stride = 310, d.q_stride = 336, d.scale_stride = 5;
  d.scale_format = HADAL_SCALE_UE8M0, d.scale_type = HADAL_SCALE_TYPE_E8M0;
  hadal_plan* p = plan(hadal_fp8_quantize_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto a = sized<hadal_fp8_quantize_args>();
  auto *x = floats(7 * 310), *q = output(7 * 336), *scale = output(7 * 5);
  a.rows = 7, a.x = at(x), a.q = at(q), a.scale = at(scale);
  Fp8QuantizeShape s = Fp8QuantizeShape::packed(7, 300, ScaleFormat::kUe8m0);
  s.x_stride = 310, s.q_stride = 336, s.scale_stride = 5, s.scale_type = ScaleType::kE8m0;
  same_bytes([&](auto c) { return hadal_fp8_quantize_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(Fp8Quantize, fp8_quantize_choose, s,
                               {x->address, q->address, scale->address}));
}

TEST_F(CapiKernelsGpu, Fp8Gemm) {
  auto d = sized<hadal_fp8_gemm_desc>();
  d.m = 5, d.n = 70, d.k = 200, d.a_stride = 208, d.a_scale_stride = 3, d.b_stride = 224;
  d.b_scale_stride = 4, d.d_stride = 75, d.d_type = HADAL_ELEMENT_F32;
  d.a_scale_type = HADAL_SCALE_TYPE_E8M0, d.b_scale_rows = 1, d.flags = HADAL_GEMM_ACCUMULATE;
  hadal_plan* p = plan(hadal_fp8_gemm_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *a = codes(4 * 208), *b = codes(70 * 224), *as = buffer(4 * 3, 0x7e), *bs = floats(70 * 4);
  auto* out = floats(4 * 75);
  auto args = sized<hadal_fp8_gemm_args>();
  args.m = 4, args.a = at(a), args.a_scale = at(as), args.b = at(b), args.b_scale = at(bs);
  args.d = at(out);
  Fp8GemmShape s = Fp8GemmShape::packed(4, 70, 200);
  s.a_stride = 208, s.a_scale_stride = 3, s.b_stride = 224, s.b_scale_stride = 4, s.d_stride = 75;
  s.accumulate = true, s.scales = {ScaleType::kE8m0, ScaleType::kF32, 1};
  same_bytes([&](auto c) { return hadal_fp8_gemm_record(p, c, &args, &error_); },
             HADAL_TEST_RECORD(Fp8Gemm, fp8_gemm_choose, s,
                               {a->address, as->address, b->address, bs->address, out->address}));
}

TEST_F(CapiKernelsGpu, Bf16Gemm) {
  auto d = sized<hadal_bf16_gemm_desc>();
  d.m = 6, d.n = 33, d.k = 72, d.a_stride = 80, d.b_stride = 88, d.d_stride = 40, d.batch = 2;
  d.a_batch_stride = 640, d.b_batch_stride = 3000, d.d_batch_stride = 300;
  d.a_type = HADAL_ELEMENT_BF16, d.d_type = HADAL_ELEMENT_F32;
  hadal_plan* p = plan(hadal_bf16_gemm_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *a = bf16s(640 + 5 * 80), *b = bf16s(3000 + 33 * 88), *out = output(4 * (300 + 5 * 40));
  auto args = sized<hadal_bf16_gemm_args>();
  args.m = 5, args.a = at(a), args.b = at(b), args.d = at(out);
  Bf16GemmShape s = Bf16GemmShape::packed(5, 33, 72, ElementType::kBf16);
  s.a_stride = 80, s.b_stride = 88, s.d_stride = 40, s.batch = 2;
  s.a_batch_stride = 640, s.b_batch_stride = 3000, s.d_batch_stride = 300;
  same_bytes(
      [&](auto c) { return hadal_bf16_gemm_record(p, c, &args, &error_); },
      HADAL_TEST_RECORD(Bf16Gemm, bf16_gemm_choose, s, {a->address, b->address, out->address}));
}

TEST_F(CapiKernelsGpu, RmsNorm) {
  auto d = sized<hadal_rms_norm_desc>();
  d.rows = 6, d.n = 150, d.x_stride = 151, d.residual_stride = 152, d.h_stride = 153;
  d.y_stride = 154, d.q_stride = 176, d.scale_stride = 3, d.flags = 15, d.eps = 1e-3f;
  d.scale_format = HADAL_SCALE_UE8M0;
  hadal_plan* p = plan(hadal_rms_norm_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *x = floats(5 * 151), *res = floats(5 * 152), *w = floats(150), *h = output(4 * 5 * 153);
  auto *y = output(4 * 5 * 154), *q = output(5 * 176), *scale = output(4 * 5 * 3);
  auto a = sized<hadal_rms_norm_args>();
  a.rows = 5, a.x = at(x), a.residual = at(res), a.weight = at(w), a.h = at(h), a.y = at(y);
  a.q = at(q), a.scale = at(scale);
  RmsNormShape s = RmsNormShape::packed(5, 150);
  s.x_stride = 151, s.residual_stride = 152, s.h_stride = 153, s.y_stride = 154, s.q_stride = 176;
  s.scale_stride = 3, s.add_residual = s.write_h = s.write_y = s.quantize = true, s.eps = 1e-3f;
  s.scale_format = ScaleFormat::kUe8m0;
  same_bytes([&](auto c) { return hadal_rms_norm_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(RmsNorm, rms_norm_choose, s,
                               {x->address, res->address, w->address, h->address, y->address,
                                q->address, scale->address}));
}

TEST_F(CapiKernelsGpu, Swiglu) {
  auto d = sized<hadal_swiglu_desc>();
  d.rows = 6, d.n = 150, d.gate_stride = 151, d.up_stride = 152, d.y_stride = 154;
  d.q_stride = 176, d.scale_stride = 3, d.flags = 3, d.scale_format = HADAL_SCALE_UE8M0;
  hadal_plan* p = plan(hadal_swiglu_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *g = floats(5 * 151), *u = floats(5 * 152), *y = output(4 * 5 * 154);
  auto *q = output(5 * 176), *scale = output(4 * 5 * 3);
  auto a = sized<hadal_swiglu_args>();
  a.rows = 5, a.gate = at(g), a.up = at(u), a.y = at(y), a.q = at(q), a.scale = at(scale);
  SwigluShape s = SwigluShape::packed(5, 150);
  s.gate_stride = 151, s.up_stride = 152, s.y_stride = 154, s.q_stride = 176, s.scale_stride = 3;
  s.write_y = s.quantize = true, s.scale_format = ScaleFormat::kUe8m0;
  same_bytes([&](auto c) { return hadal_swiglu_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(Swiglu, swiglu_choose, s,
                               {g->address, u->address, y->address, q->address, scale->address}));
}

TEST_F(CapiKernelsGpu, Rope) {
  auto d = sized<hadal_rope_desc>();
  d.rows = 6, d.heads = 3, d.dim = 16, d.row_stride = 90, d.head_stride = 28, d.offset = 8;
  d.half_split = VK_TRUE, d.max_position = 20;
  hadal_plan* p = plan(hadal_rope_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *x = floats(5 * 90), *positions = indices(5, 20), *table = floats(20 * 16);
  auto a = sized<hadal_rope_args>();
  a.rows = 5, a.x = at(x), a.positions = at(positions), a.table = at(table);
  RopeShape s = RopeShape::packed(5, 3, 16, 20);
  s.row_stride = 90, s.head_stride = 28, s.offset = 8, s.interleaved = false;
  same_bytes(
      [&](auto c) { return hadal_rope_record(p, c, &a, &error_); },
      HADAL_TEST_RECORD(Rope, rope_choose, s, {x->address, positions->address, table->address}));
  const double frequencies[] = {1.0, 0.01};
  std::vector<float> made(2 * 3 * 2);
  EXPECT_EQ(hadal_rope_table(frequencies, 2, 1.5, 7, 3, made.data(), &error_), HADAL_OK);
  EXPECT_EQ(made, rope_table(frequencies, 1.5, 7, 3));
}

TEST_F(CapiKernelsGpu, Embedding) {
  auto d = sized<hadal_embedding_desc>();
  d.tokens = 6, d.hidden = 50, d.vocab = 30, d.table_stride = 52, d.y_stride = 54;
  hadal_plan* p = plan(hadal_embedding_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *ids = indices(5, 31), *table = bf16s(30 * 52), *y = output(4 * 5 * 54);
  auto a = sized<hadal_embedding_args>();
  a.tokens = 5, a.ids = at(ids), a.table = at(table), a.y = at(y);
  EmbeddingShape s = EmbeddingShape::packed(5, 50, 30);
  s.table_stride = 52, s.y_stride = 54;
  same_bytes([&](auto c) { return hadal_embedding_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(Embedding, embedding_choose, s,
                               {ids->address, table->address, y->address}));
}

TEST_F(CapiKernelsGpu, MoeGate) {
  auto d = sized<hadal_moe_gate_desc>();
  d.tokens = 6, d.experts = 32, d.top_k = 3, d.n_group = 8, d.topk_group = 2;
  d.scoring = HADAL_GATE_SOFTMAX, d.keep_sum = VK_TRUE, d.scaling = 2.5f, d.logits_stride = 36;
  hadal_plan* p = plan(hadal_moe_gate_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *logits = floats(5 * 36), *bias = floats(32), *out = output(5 * 12), *w = output(5 * 12);
  auto a = sized<hadal_moe_gate_args>();
  a.tokens = 5, a.logits = at(logits), a.bias = at(bias), a.indices = at(out), a.weights = at(w);
  MoeGateShape s = MoeGateShape::packed(5, 32, 3);
  s.n_group = 8, s.topk_group = 2, s.scoring = GateScoring::kSoftmax, s.norm = false;
  s.scaling = 2.5f, s.logits_stride = 36;
  same_bytes([&](auto c) { return hadal_moe_gate_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(MoeGate, moe_gate_choose, s,
                               {logits->address, bias->address, out->address, w->address}));
}

TEST_F(CapiKernelsGpu, MoePermuteAndCombine) {
  auto d = sized<hadal_moe_permute_desc>();
  d.tokens = 9, d.experts = 6, d.top_k = 2, d.tile_m = 4, d.command_count = 2;
  d.groups_x[0] = 5, d.groups_x[1] = 7;
  hadal_plan* p = plan(hadal_moe_permute_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *in = indices(16, 6), *token = output(64), *row = output(64), *ends = output(24);
  auto *tiles = output(16 * 16), *commands = output(24);
  auto a = sized<hadal_moe_permute_args>();
  a.tokens = 8, a.indices = at(in), a.row_token = at(token), a.row_of = at(row);
  a.segment_ends = at(ends), a.tiles = at(tiles), a.commands = at(commands);
  MoePermuteShape s = MoePermuteShape::packed(8, 6, 2, 4);
  s.command_count = 2, s.groups_x = {5, 7, 0, 0};
  same_bytes([&](auto c) { return hadal_moe_permute_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(MoePermute, moe_permute_choose, s,
                               {in->address, token->address, row->address, ends->address,
                                tiles->address, commands->address}));

  auto cd = sized<hadal_moe_combine_desc>();
  cd.tokens = 9, cd.hidden = 40, cd.top_k = 2, cd.x_stride = 41, cd.shared_stride = 42;
  cd.y_stride = 43, cd.flags = 3;
  hadal_plan* cp = plan(hadal_moe_combine_plan, cd);
  ASSERT_TRUE(cp) << error_.message;
  auto *x = floats(8 * 41), *shared = floats(8 * 42), *y = floats(16 * 43), *w = floats(16);
  auto ca = sized<hadal_moe_combine_args>();
  ca.tokens = 8, ca.x = at(x), ca.shared = at(shared), ca.y = at(y), ca.row_of = at(row);
  ca.weights = at(w);
  MoeCombineShape cs = MoeCombineShape::packed(8, 40, 2);
  cs.x_stride = 41, cs.shared_stride = 42, cs.y_stride = 43;
  cs.accumulate = cs.has_shared = true;
  same_bytes(
      [&](auto c) { return hadal_moe_combine_record(cp, c, &ca, &error_); },
      HADAL_TEST_RECORD(MoeCombine, moe_combine_choose, cs,
                        {x->address, shared->address, y->address, row->address, w->address}));
}

// moe_tiles, the two grouped GEMMs and swiglu_tiles over one list of masked groups.
TEST_F(CapiKernelsGpu, TilesAndWhatRunsOverThem) {
  constexpr uint32_t kExperts = 3, kMax = 4, kRows = kExperts * kMax, kN = 70, kK = 200;
  auto gd = sized<hadal_fp8_grouped_gemm_desc>();
  gd.rows = kRows, gd.experts = kExperts, gd.n = kN, gd.k = kK, gd.expected_rows = 6;
  gd.a_stride = 208, gd.a_scale_stride = 3, gd.b_stride = 224, gd.b_scale_stride = 4;
  gd.d_stride = 75, gd.d_type = HADAL_ELEMENT_BF16, gd.b_scale_rows = 1;
  hadal_plan* fp8 = plan(hadal_fp8_grouped_gemm_plan, gd);
  ASSERT_TRUE(fp8) << error_.message;
  auto bd = sized<hadal_bf16_grouped_gemm_desc>();
  bd.rows = kRows, bd.experts = kExperts, bd.n = kN, bd.k = kK, bd.expected_rows = 6;
  bd.a_stride = 204, bd.b_stride = 216, bd.d_stride = 76;
  hadal_plan* bf16 = plan(hadal_bf16_grouped_gemm_plan, bd);
  ASSERT_TRUE(bf16) << error_.message;
  auto sd = sized<hadal_swiglu_desc>();
  sd.rows = kRows, sd.n = 30, sd.gate_stride = 76, sd.up_stride = 77, sd.y_stride = 31;
  sd.q_stride = 48, sd.scale_stride = 2, sd.flags = 3;
  hadal_plan* gate = plan(hadal_swiglu_tiles_plan, sd);
  ASSERT_TRUE(gate) << error_.message;

  auto td = sized<hadal_moe_tiles_desc>();
  td.experts = kExperts, td.m_max = kMax, td.tile_m = UINT32_MAX, td.command_count = 3;
  hadal_plan* const users[] = {fp8, bf16, gate};
  for (int i = 0; i < 3; ++i) {
    auto t = sized<hadal_grouped_tiling>();
    ASSERT_EQ(hadal_grouped_gemm_tiling(users[i], &t, &error_), HADAL_OK) << error_.message;
    if (t.tile_m) td.tile_m = std::min(td.tile_m, t.tile_m);
    td.groups_x[i] = t.groups_x;
  }
  hadal_plan* list = plan(hadal_moe_tiles_plan, td);
  ASSERT_TRUE(list) << error_.message;
  auto* counts = buffer_of(std::vector<uint32_t>{2, 0, 4});
  auto *tiles = output(kRows * 16), *commands = output(3 * 12);
  auto ta = sized<hadal_moe_tiles_args>();
  ta.segments = at(counts), ta.tiles = at(tiles), ta.commands = at(commands);
  MoeTilesShape ts = MoeTilesShape::masked_groups(kExperts, kMax, td.tile_m);
  ts.command_count = 3, ts.groups_x = {td.groups_x[0], td.groups_x[1], td.groups_x[2], 0};
  same_bytes([&](auto c) { return hadal_moe_tiles_record(list, c, &ta, &error_); },
             HADAL_TEST_RECORD(MoeTiles, moe_tiles_choose, ts,
                               {counts->address, tiles->address, commands->address}));

  std::vector<ExpertWeight> fp8_table, bf16_table;
  for (uint32_t e = 0; e < kExperts; ++e) {
    fp8_table.push_back({codes(kN * 224)->address, floats(kN * 4)->address});
    bf16_table.push_back({bf16s(kN * 216)->address, 0});
  }
  const Buffer indirect = Buffer::borrow(commands->buffer, commands->address, commands->bytes);
  auto *a = codes(kRows * 208), *as = floats(kRows * 3), *d = output(kRows * 75 * 2);
  auto* table = buffer_of(fp8_table);
  auto ga = sized<hadal_fp8_grouped_gemm_args>();
  ga.rows = kRows, ga.a = at(a), ga.a_scale = at(as), ga.expert_table = at(table);
  ga.tiles = at(tiles), ga.indirect = host_buffer_range(commands, 0), ga.d = at(d);
  Fp8GroupedGemmShape gs = Fp8GroupedGemmShape::packed(kRows, kExperts, kN, kK);
  gs.expected_rows = 6, gs.a_stride = 208, gs.a_scale_stride = 3, gs.b_stride = 224;
  gs.b_scale_stride = 4, gs.d_stride = 75, gs.d_type = ElementType::kBf16, gs.scales.b_rows = 1;
  Fp8GroupedGemmArgs g;
  g.a = a->address, g.a_scale = as->address, g.expert_table = table->address;
  g.tiles = tiles->address, g.indirect_buffer = &indirect, g.d = d->address;
  same_bytes([&](auto c) { return hadal_fp8_grouped_gemm_record(fp8, c, &ga, &error_); },
             HADAL_TEST_RECORD(Fp8GroupedGemm, fp8_grouped_gemm_choose, gs, g));

  auto *ba = floats(kRows * 204), *bout = output(kRows * 76 * 4), *btable = buffer_of(bf16_table);
  auto bargs = sized<hadal_bf16_grouped_gemm_args>();
  bargs.rows = kRows, bargs.a = at(ba), bargs.expert_table = at(btable), bargs.tiles = at(tiles);
  bargs.indirect = host_buffer_range(commands, 12), bargs.d = at(bout);
  Bf16GroupedGemmShape bs = Bf16GroupedGemmShape::packed(kRows, kExperts, kN, kK);
  bs.expected_rows = 6, bs.a_stride = 204, bs.b_stride = 216, bs.d_stride = 76;
  Bf16GroupedGemmArgs b;
  b.a = ba->address, b.expert_table = btable->address, b.tiles = tiles->address;
  b.indirect_buffer = &indirect, b.indirect_offset = 12, b.d = bout->address;
  same_bytes([&](auto c) { return hadal_bf16_grouped_gemm_record(bf16, c, &bargs, &error_); },
             HADAL_TEST_RECORD(Bf16GroupedGemm, bf16_grouped_gemm_choose, bs, b));

  auto *up = floats(kRows * 77), *y = output(kRows * 31 * 4), *q = output(kRows * 48);
  auto* scale = output(kRows * 2 * 4);
  auto sa = sized<hadal_swiglu_tiles_args>();
  sa.rows = kRows, sa.max_tiles = kRows, sa.gate = at(bout), sa.up = at(up), sa.y = at(y);
  sa.q = at(q), sa.scale = at(scale), sa.tiles = at(tiles);
  sa.indirect = host_buffer_range(commands, 24);
  SwigluShape ss = SwigluShape::packed(kRows, 30);
  ss.gate_stride = 76, ss.up_stride = 77, ss.y_stride = 31, ss.q_stride = 48, ss.scale_stride = 2;
  ss.quantize = true;
  const SwigluTilesArgs sargs{{bout->address, up->address, y->address, q->address, scale->address},
                              tiles->address,
                              kRows,
                              &indirect,
                              24};
  same_bytes([&](auto c) { return hadal_swiglu_tiles_record(gate, c, &sa, &error_); },
             HADAL_TEST_RECORD(SwigluTiles, swiglu_choose, ss, sargs));
}

TEST_F(CapiKernelsGpu, MlaCache) {
  auto d = sized<hadal_mla_cache_write_desc>();
  d.tokens = 6, d.rank = 136, d.rope = 16, d.y_stride = 160, d.row_stride = 208;
  d.cache_rows = 128, d.max_position = 50, d.half_split = VK_TRUE, d.eps = 1e-4f;
  d.cache_format = HADAL_CACHE_FP8, d.rounding = HADAL_LATENT_FP8_UE8M0;
  hadal_plan* p = plan(hadal_mla_cache_write_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *y = floats(5 * 160), *w = floats(136), *positions = indices(5, 50),
       *table = floats(50 * 16);
  auto* slots = buffer_of(std::vector<uint32_t>{3, 90, 64, 127, 5});
  auto* cache = output(128 * 208);
  auto a = sized<hadal_mla_cache_write_args>();
  a.tokens = 5, a.y = at(y), a.weight = at(w), a.positions = at(positions), a.table = at(table);
  a.slots = at(slots), a.cache = at(cache);
  MlaCacheWriteShape s = MlaCacheWriteShape::packed(5, 136, 16, 128, 50, CacheFormat::kFp8);
  s.y_stride = 160, s.row_stride = 208, s.interleaved = false, s.eps = 1e-4f;
  s.rounding = LatentRounding::kFp8Ue8m0;
  same_bytes([&](auto c) { return hadal_mla_cache_write_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(MlaCacheWrite, mla_cache_write_choose, s,
                               {y->address, w->address, positions->address, table->address,
                                slots->address, cache->address}));
  EXPECT_EQ(hadal_cache_row_stride(HADAL_CACHE_FP8, 512, 64), 656u);
  EXPECT_EQ(hadal_cache_row_bytes(HADAL_CACHE_BF16, 576), 1152u);
  EXPECT_EQ(hadal_cache_row_stride(3, 512, 64), 0u);

  auto rd = sized<hadal_mla_cache_read_desc>();
  rd.rank = 136, rd.rope = 16, rd.row_stride = 160, rd.latent_stride = 137, rd.k_pe_stride = 17;
  rd.q_stride = 144, rd.scale_stride = 3, rd.cache_rows = 128, rd.table_pages = 2;
  rd.scale_format = HADAL_SCALE_UE8M0;
  hadal_plan* rp = plan(hadal_mla_cache_read_plan, rd);
  ASSERT_TRUE(rp) << error_.message;
  auto *kept = floats(128 * 160), *pages = buffer_of(std::vector<uint32_t>{1, 0});
  auto *latent = output(4 * 9 * 137), *k_pe = output(4 * 9 * 17), *q = output(9 * 144);
  auto* scale = output(4 * 9 * 3);
  auto ra = sized<hadal_mla_cache_read_args>();
  ra.begin = 60, ra.rows = 9, ra.cache = at(kept), ra.block_table = at(pages);
  ra.latent = at(latent), ra.k_pe = at(k_pe), ra.q = at(q), ra.scale = at(scale);
  MlaCacheReadShape rs = MlaCacheReadShape::packed(60, 9, 136, 16, 128);
  rs.row_stride = 160, rs.latent_stride = 137, rs.k_pe_stride = 17, rs.q_stride = 144;
  rs.scale_stride = 3, rs.table_pages = 2, rs.scale_format = ScaleFormat::kUe8m0;
  same_bytes([&](auto c) { return hadal_mla_cache_read_record(rp, c, &ra, &error_); },
             HADAL_TEST_RECORD(MlaCacheRead, mla_cache_read_choose, rs,
                               {kept->address, pages->address, latent->address, k_pe->address,
                                q->address, scale->address}));
}

TEST_F(CapiKernelsGpu, MlaDecode) {
  auto d = sized<hadal_mla_decode_desc>();
  d.tokens = 6, d.heads = 5, d.rank = 64, d.rope = 16, d.q_len = 2, d.max_kv_len = 1100;
  d.cache_rows = 1280, d.q_latent_row_stride = 400, d.q_latent_head_stride = 72;
  d.q_pe_row_stride = 110, d.q_pe_head_stride = 20, d.row_stride = 84, d.table_stride = 19;
  d.o_row_stride = 390, d.o_head_stride = 68, d.scale = 0.3f;
  hadal_plan* p = plan(hadal_mla_decode_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *ql = floats(4 * 400), *qp = floats(4 * 110), *cache = floats(1280 * 84);
  auto *tables = indices(2 * 19, 20), *lens = buffer_of(std::vector<uint32_t>{1090, 70});
  auto *o = output(4 * 4 * 390), *lse = output(4 * 4 * 5);
  auto* scratch = buffer(hadal_plan_scratch_bytes(p), 0);
  auto a = sized<hadal_mla_decode_args>();
  a.tokens = 4, a.q_latent = at(ql), a.q_pe = at(qp), a.cache = at(cache);
  a.block_tables = at(tables), a.kv_lens = at(lens), a.o = at(o), a.lse = at(lse);
  a.scratch = at(scratch);
  MlaDecodeShape s = MlaDecodeShape::packed(4, 5, 64, 16, 1100, 1280);
  s.q_len = 2, s.q_latent_row_stride = 400, s.q_latent_head_stride = 72, s.q_pe_row_stride = 110;
  s.q_pe_head_stride = 20, s.row_stride = 84, s.table_stride = 19, s.o_row_stride = 390;
  s.o_head_stride = 68, s.scale = 0.3f;
  same_bytes([&](auto c) { return hadal_mla_decode_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(MlaDecode, mla_decode_choose, s,
                               {ql->address, qp->address, cache->address, tables->address,
                                lens->address, o->address, lse->address, scratch->address}));
}

TEST_F(CapiKernelsGpu, MlaPrefill) {
  auto d = sized<hadal_mla_prefill_desc>();
  d.q_len = 12, d.heads = 3, d.nope = 16, d.rope = 8, d.v = 24, d.q_row_stride = 90;
  d.q_head_stride = 26, d.kv_row_stride = 124, d.k_pe_stride = 10, d.o_row_stride = 80;
  d.o_head_stride = 25, d.scale = 0.3f;
  hadal_plan* p = plan(hadal_mla_prefill_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *q = floats(10 * 90), *kv = floats(64 * 124), *k_pe = floats(64 * 10);
  auto *o = output(4 * 10 * 80), *state = output(4 * 10 * 3 * 2);
  auto* scratch = buffer(std::max<uint64_t>(hadal_plan_scratch_bytes(p), 4), 0);
  auto a = sized<hadal_mla_prefill_args>();
  a.q_len = 10, a.q_begin = 130, a.kv_begin = 0, a.kv_rows = 64, a.flags = HADAL_MLA_FIRST;
  a.q = at(q), a.kv = at(kv), a.k_pe = at(k_pe), a.o = at(o), a.state = at(state);
  a.scratch = at(scratch);
  MlaPrefillShape s = MlaPrefillShape::packed(130, 10, 3, 16, 8, 24);
  s.kv_rows = 64, s.q_row_stride = 90, s.q_head_stride = 26, s.kv_row_stride = 124;
  s.k_pe_stride = 10, s.o_row_stride = 80, s.o_head_stride = 25, s.scale = 0.3f, s.last = false;
  same_bytes([&](auto c) { return hadal_mla_prefill_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(MlaPrefill, mla_prefill_choose, s,
                               {q->address, kv->address, k_pe->address, o->address, state->address,
                                scratch->address, 0}));

  // A batch of two sequences in the same rows.
  d.batch = VK_TRUE, d.max_q_len = 6;
  hadal_plan* batch = plan(hadal_mla_prefill_plan, d);
  ASSERT_TRUE(batch) << error_.message;
  auto* sequences =
      buffer_of(std::vector<MlaPrefillSequence>{{0, 4, 20, 0, 24, 0, 3}, {4, 6, 0, 24, 6, 0, 3}});
  auto* more = buffer(hadal_plan_scratch_bytes(batch), 0);
  a.scratch = at(more), a.sequence_count = 2, a.sequences = at(sequences);
  s = MlaPrefillShape::packed(0, 10, 3, 16, 8, 24);
  s.kv_rows = 64, s.q_row_stride = 90, s.q_head_stride = 26, s.kv_row_stride = 124;
  s.k_pe_stride = 10, s.o_row_stride = 80, s.o_head_stride = 25, s.scale = 0.3f;
  s.sequences = 2, s.max_q_len = 6;
  same_bytes([&](auto c) { return hadal_mla_prefill_record(batch, c, &a, &error_); },
             HADAL_TEST_RECORD(MlaPrefill, mla_prefill_choose, s,
                               {q->address, kv->address, k_pe->address, o->address, state->address,
                                more->address, sequences->address}));
}

TEST_F(CapiKernelsGpu, MlaAbsorb) {
  for (uint32_t direction : {HADAL_ABSORB_QUERY, HADAL_ABSORB_VALUE}) {
    auto d = sized<hadal_mla_absorb_desc>();
    d.tokens = 5, d.heads = 3, d.nope = 24, d.v = 40, d.rank = 136, d.direction = direction;
    d.w_stride = 160, d.w_scale_stride = 3, d.in_token_stride = 500, d.in_head_stride = 141;
    d.out_token_stride = 510, d.out_head_stride = 142;
    hadal_plan* p = plan(hadal_mla_absorb_plan, d);
    ASSERT_TRUE(p) << error_.message;
    auto *in = floats(4 * 500), *w = codes(3 * 64 * 160), *ws = floats(2 * 3);
    auto* out = output(4 * 4 * 510);
    auto a = sized<hadal_mla_absorb_args>();
    a.tokens = 4, a.in = at(in), a.w = at(w), a.w_scale = at(ws), a.out = at(out);
    MlaAbsorbShape s = MlaAbsorbShape::packed(4, 3, 24, 40, 136, MlaAbsorbDirection(direction),
                                              MlaAbsorbWeight::kE4m3);
    s.w_stride = 160, s.w_scale_stride = 3, s.in_token_stride = 500, s.in_head_stride = 141;
    s.out_token_stride = 510, s.out_head_stride = 142;
    same_bytes([&](auto c) { return hadal_mla_absorb_record(p, c, &a, &error_); },
               HADAL_TEST_RECORD(MlaAbsorb, mla_absorb_choose, s,
                                 {in->address, w->address, ws->address, out->address}));
  }
}

TEST_F(CapiKernelsGpu, Sample) {
  auto d = sized<hadal_sample_desc>();
  d.rows = 4, d.vocab = 200, d.logits_stride = 210;
  hadal_plan* p = plan(hadal_sample_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *logits = floats(3 * 210), *ids = output(12);
  std::vector<hadal_device_sample_params> rows(3);
  rows[1] = {1.0f, 20, 0.9f, 0.01f, 5, 6, 7, 0};
  rows[2] = {0.7f, 0, 1.0f, 0.0f, 8, 9, 10, 0};
  auto* params = buffer_of(rows);
  auto a = sized<hadal_sample_args>();
  a.rows = 3, a.logits = at(logits), a.params = at(params), a.ids = at(ids);
  SampleShape s = SampleShape::packed(3, 200);
  s.logits_stride = 210;
  same_bytes([&](auto c) { return hadal_sample_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(Sample, sample_choose, s,
                               {logits->address, params->address, ids->address}));
}

TEST_F(CapiKernelsGpu, LogitAdjust) {
  auto d = sized<hadal_logit_adjust_desc>();
  d.rows = 5, d.vocab = 70, d.x_stride = 72, d.y_stride = 74, d.listed = 3, d.edits = 4,
  d.masks = 2;
  hadal_plan* p = plan(hadal_logit_adjust_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *x = floats(4 * 72), *y = output(4 * 4 * 74), *masks = indices(1 * 3, ~0u);
  auto* listed = buffer_of(std::vector<LogitAdjustRow>{{3, 0, 0, 2, 1.5f, 1 / 1.5f, 0.1f, 0.2f},
                                                       {1, kNoLogitMask, 2, 3, 1, 1, 0.5f, 0}});
  auto* edits = buffer_of(std::vector<LogitEdit>{{5, 1, 2, 0.5f}, {9, 0, 1, 0}, {60, 3, 0, -1}});
  auto a = sized<hadal_logit_adjust_args>();
  a.rows = 4, a.listed = 2, a.edits = 3, a.masks = 1, a.x = at(x), a.y = at(y);
  a.listed_rows = at(listed), a.edit_list = at(edits), a.mask_bits = at(masks);
  LogitAdjustShape s = LogitAdjustShape::packed(4, 70);
  s.x_stride = 72, s.y_stride = 74, s.listed = 2, s.edits = 3, s.masks = 1, s.in_place = false;
  same_bytes(
      [&](auto c) { return hadal_logit_adjust_record(p, c, &a, &error_); },
      HADAL_TEST_RECORD(LogitAdjust, logit_adjust_choose, s,
                        {x->address, y->address, listed->address, edits->address, masks->address}));
}

TEST_F(CapiKernelsGpu, TopLogprobs) {
  auto d = sized<hadal_top_logprobs_desc>();
  d.rows = 5, d.vocab = 70, d.logits_stride = 72, d.top = 3;
  hadal_plan* p = plan(hadal_top_logprobs_plan, d);
  ASSERT_TRUE(p) << error_.message;
  auto *logits = floats(4 * 72), *listed = buffer_of(std::vector<uint32_t>{3, 0});
  auto *ids = indices(4, 70), *out = output(2 * 4), *top = output(2 * 3 * 4);
  auto* top_out = output(2 * 3 * 4);
  auto a = sized<hadal_top_logprobs_args>();
  a.rows = 4, a.listed = 2, a.logits = at(logits), a.listed_rows = at(listed), a.ids = at(ids);
  a.logprobs = at(out), a.top_ids = at(top), a.top_logprobs = at(top_out);
  TopLogprobsShape s = TopLogprobsShape::packed(4, 70, 3);
  s.logits_stride = 72, s.listed = 2;
  same_bytes([&](auto c) { return hadal_top_logprobs_record(p, c, &a, &error_); },
             HADAL_TEST_RECORD(TopLogprobs, top_logprobs_choose, s,
                               {logits->address, listed->address, ids->address, out->address,
                                top->address, top_out->address}));
}

}  // namespace
}  // namespace hadal::test
