// Every embedded SPIR-V module against the C++ side of its layout header: offsets, types and size
// of the push constants, specialisation constants, and the workgroup size's. The modules carry no
// names (glslc -O strips them), so members compare by place and type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "layout/attention_coopmat.h"
#include "layout/attention_lanes.h"
#include "layout/attention_shared.h"
#include "layout/bf16_gemm.h"
#include "layout/bf16_grouped_gemm.h"
#include "layout/embedding.h"
#include "layout/fp8_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "layout/fp8_grouped_gemm.h"
#include "layout/fp8_quantize.h"
#include "layout/logit_adjust.h"
#include "layout/mla_absorb.h"
#include "layout/mla_cache_read.h"
#include "layout/mla_cache_write.h"
#include "layout/mla_decode.h"
#include "layout/mla_prefill.h"
#include "layout/moe_gate.h"
#include "layout/moe_permute.h"
#include "layout/moe_tiles.h"
#include "layout/rms_norm.h"
#include "layout/rope.h"
#include "layout/sample.h"
#include "layout/swiglu.h"
#include "layout/top_logprobs.h"
#include "support/spirv_reader.h"
#include "support/struct_members.h"
#include "vk/pipeline.h"

namespace hadal::test {
namespace {

using namespace hadal::layout;

struct ModuleLayout {
  std::string_view module;
  std::vector<PushMember> push;
  size_t push_bytes;
  std::vector<uint32_t> spec_ids;  // besides kSpecWorkgroupSize and, where sums use it, kSpecUseFma
};

template <class Push>
ModuleLayout entry(std::string_view module, std::vector<uint32_t> spec_ids = {}) {
  return {module, struct_members<Push>(), sizeof(Push), std::move(spec_ids)};
}

// One line per module.
std::vector<ModuleLayout> table() {
  std::vector<uint32_t> coopmat;
  for (uint32_t id = kFp8PathSpecTileM; id <= kFp8PathSpecCoopK; ++id) coopmat.push_back(id);
  std::vector<uint32_t> decode_coopmat = {kMlaDecodeSpecFormat, kMlaDecodeSpecOutBf16};
  std::vector<uint32_t> prefill_coopmat = {kMlaPrefillSpecBatch};
  for (uint32_t id = kAttentionCoopSpecRows; id <= kAttentionCoopSpecCoopK; ++id) {
    decode_coopmat.push_back(id);
    prefill_coopmat.push_back(id);
  }
  const std::vector<uint32_t> shared(coopmat.begin(), coopmat.end() - 3);
  return {
      entry<Fp8GemmPush>("fp8_gemm_scalar",
                         {kFp8GemmSpecTileM, kFp8GemmSpecTileN, kFp8GemmSpecDBf16,
                          kFp8GemmSpecAScaleE8m0, kFp8GemmSpecBScaleE8m0, kFp8GemmSpecBScaleShift,
                          kFp8GemmSpecStepK, kFp8GemmSpecRowGroup}),
      entry<Fp8GroupedGemmPush>(
          "fp8_grouped_gemm_scalar",
          {kFp8GroupedGemmSpecTileM, kFp8GroupedGemmSpecTileN, kFp8GroupedGemmSpecDBf16,
           kFp8GroupedGemmSpecAScaleE8m0, kFp8GroupedGemmSpecBScaleE8m0,
           kFp8GroupedGemmSpecBScaleShift, kFp8GroupedGemmSpecStepK, kFp8GroupedGemmSpecRowGroup}),
      entry<Fp8GemmPush>("fp8_gemm_shared", shared),
      entry<Fp8GroupedGemmPush>("fp8_grouped_gemm_shared", shared),
      entry<Fp8GemmPush>("fp8_gemm_coopmat", coopmat),
      entry<Fp8GemmPush>("fp8_gemm_coopmat_float8", coopmat),
      entry<Fp8GroupedGemmPush>("fp8_grouped_gemm_coopmat", coopmat),
      entry<Fp8GroupedGemmPush>("fp8_grouped_gemm_coopmat_float8", coopmat),
      entry<Fp8QuantizePush>("fp8_quantize"),
      entry<Fp8QuantizePush>("fp8_quantize_vectors"),
      entry<Fp8GemmPush>("fp8_gemm",
                         {kFp8GemmSpecTileM, kFp8GemmSpecTileN, kFp8GemmSpecDBf16,
                          kFp8GemmSpecAScaleE8m0, kFp8GemmSpecBScaleE8m0, kFp8GemmSpecBScaleShift}),
      entry<Fp8GroupedGemmPush>("fp8_grouped_gemm",
                                {kFp8GroupedGemmSpecTileM, kFp8GroupedGemmSpecTileN,
                                 kFp8GroupedGemmSpecDBf16, kFp8GroupedGemmSpecAScaleE8m0,
                                 kFp8GroupedGemmSpecBScaleE8m0, kFp8GroupedGemmSpecBScaleShift}),
      entry<Bf16GemmPush>("bf16_gemm", {kBf16GemmSpecTileM, kBf16GemmSpecTileN, kBf16GemmSpecABf16,
                                        kBf16GemmSpecDBf16}),
      entry<Bf16GroupedGemmPush>(
          "bf16_grouped_gemm",
          {kBf16GroupedGemmSpecTileM, kBf16GroupedGemmSpecTileN, kBf16GroupedGemmSpecDBf16}),
      entry<Bf16GemmPush>("bf16_gemm_scalar",
                          {kBf16GemmSpecTileM, kBf16GemmSpecTileN, kBf16GemmSpecABf16,
                           kBf16GemmSpecDBf16, kBf16GemmSpecStepK, kBf16GemmSpecRowGroup}),
      entry<Bf16GroupedGemmPush>(
          "bf16_grouped_gemm_scalar",
          {kBf16GroupedGemmSpecTileM, kBf16GroupedGemmSpecTileN, kBf16GroupedGemmSpecDBf16,
           kBf16GroupedGemmSpecStepK, kBf16GroupedGemmSpecRowGroup}),
      entry<RmsNormPush>("rms_norm"),
      entry<RmsNormPush>("rms_norm_vectors"),
      entry<SwigluPush>("swiglu"),
      entry<SwigluTilesPush>("swiglu_tiles"),
      entry<SwigluPush>("swiglu_vectors"),
      entry<SwigluPush>("swiglu_pairs"),
      entry<RopePush>("rope"),
      entry<EmbeddingPush>("embedding"),
      entry<MlaCacheWritePush>("mla_cache_write",
                               {kMlaCacheWriteSpecFormat, kMlaCacheWriteSpecRounding}),
      entry<MlaCacheReadPush>("mla_cache_read", {kMlaCacheReadSpecFormat}),
      entry<MlaPrefillPush>("mla_prefill", {kMlaPrefillSpecTile, kMlaPrefillSpecKeys,
                                            kMlaPrefillSpecPairs, kMlaPrefillSpecBatch}),
      entry<MlaPrefillPush>("mla_prefill_coopmat", prefill_coopmat),
      entry<MlaPrefillPush>(
          "mla_prefill_shared",
          {kAttentionSharedSpecRows, kAttentionSharedSpecSlice, kAttentionSharedSpecInvocations,
           kAttentionSharedSpecValueSlices, kMlaPrefillSpecBatch}),
      entry<MlaPrefillPush>(
          "mla_prefill_lanes",
          {kAttentionLanesSpecVectors, kAttentionLanesSpecKeys, kAttentionLanesSpecChannels,
           kAttentionLanesSpecRun, kMlaPrefillSpecBatch}),
      entry<MlaAbsorbPush>("mla_absorb", {kMlaAbsorbSpecTileM, kMlaAbsorbSpecTileN,
                                          kMlaAbsorbSpecValue, kMlaAbsorbSpecWBf16}),
      entry<MlaAbsorbPush>("mla_absorb_scalar", {kMlaAbsorbSpecTileM, kMlaAbsorbSpecTileN,
                                                 kMlaAbsorbSpecValue, kMlaAbsorbSpecWBf16}),
      entry<MlaDecodePush>("mla_decode",
                           {kMlaDecodeSpecTile, kMlaDecodeSpecKeys, kMlaDecodeSpecPairs,
                            kMlaDecodeSpecFormat, kMlaDecodeSpecOutBf16}),
      entry<MlaDecodePush>("mla_decode_coopmat", decode_coopmat),
      entry<MlaDecodePush>(
          "mla_decode_shared",
          {kAttentionSharedSpecRows, kAttentionSharedSpecSlice, kAttentionSharedSpecInvocations,
           kAttentionSharedSpecValueSlices, kMlaDecodeSpecFormat, kMlaDecodeSpecOutBf16}),
      entry<MlaDecodeLanesPush>(
          "mla_decode_lanes",
          {kAttentionLanesSpecVectors, kAttentionLanesSpecKeys, kAttentionLanesSpecChannels,
           kAttentionLanesSpecRun, kMlaDecodeSpecFormat, kMlaDecodeSpecOutBf16}),
      entry<MlaDecodePush>("mla_decode_combine",
                           {kMlaDecodeSpecPairs, kMlaDecodeSpecVectors, kMlaDecodeSpecOutBf16}),
      entry<MoeGatePush>("moe_gate"),
      entry<MoeGatePush>("moe_gate_lanes", {kMoeGateSpecTopK}),
      entry<MoeGatePush>("moe_gate_sorted", {kMoeGateSpecTopK, kMoeGateSpecKept}),
      entry<MoePermutePush>("moe_permute"),
      entry<MoePermutePush>("moe_permute_vectors"),
      entry<MoeTilesPush>("moe_tiles"),
      entry<MoeCombinePush>("moe_combine"),
      entry<MoeCombinePush>("moe_combine_vectors"),
      entry<LogitAdjustPush>("logit_adjust", {kLogitAdjustSpecInPlace}),
      entry<SamplePush>("sample"),
      entry<TopLogprobsPush>("top_logprobs"),
  };
}

const ModuleLayout* find_layout(const std::vector<ModuleLayout>& layouts, std::string_view name) {
  const auto found = std::find_if(layouts.begin(), layouts.end(),
                                  [&](const ModuleLayout& l) { return l.module == name; });
  return found == layouts.end() ? nullptr : &*found;
}

std::span<const uint32_t> module_words(std::string_view name) {
  for (const vk::EmbeddedModule& module : vk::embedded_modules()) {
    if (module.name == name) return module.words;
  }
  return {};
}

uint32_t bytes_of(ScalarKind kind) {
  return kind == ScalarKind::kU64 ? 8 : 4;
}

TEST(LayoutHost, EveryModuleAgreesWithItsLayoutHeader) {
  const std::vector<ModuleLayout> layouts = table();
  ASSERT_FALSE(vk::embedded_modules().empty());
  for (const vk::EmbeddedModule& module : vk::embedded_modules()) {
    SCOPED_TRACE(std::string(module.name));
    const ModuleLayout* expected = find_layout(layouts, module.name);
    if (!expected) {
      ADD_FAILURE() << "no entry in table() of layout_test.cpp";
      continue;
    }
    const SpirvInterface got = read_spirv(module.words);
    ASSERT_EQ(got.error, "");
    EXPECT_TRUE(got.push == expected->push)
        << "module: " << to_string(got.push) << "\nheader: " << to_string(expected->push);
    ASSERT_FALSE(got.push.empty());
    // A tail of padding may round the struct up to its 8-byte alignment, no further.
    const size_t end = got.push.back().offset + bytes_of(got.push.back().kind);
    EXPECT_EQ((end + 7) / 8 * 8, (expected->push_bytes + 7) / 8 * 8);
    EXPECT_GE(expected->push_bytes, end);

    EXPECT_EQ(got.local_size_x_spec_id, kSpecWorkgroupSize);
    for (uint32_t id : expected->spec_ids) {
      EXPECT_EQ(std::count(got.spec_ids.begin(), got.spec_ids.end(), id), 1) << "spec id " << id;
    }
    for (uint32_t id : got.spec_ids) {
      const bool common = id == kSpecWorkgroupSize || id == kSpecUseFma;
      EXPECT_TRUE(common || std::count(expected->spec_ids.begin(), expected->spec_ids.end(), id))
          << "spec id " << id << " is not in the table";
    }
  }
}

TEST(LayoutHost, EveryEntryHasAModule) {
  for (const ModuleLayout& layout : table()) {
    // Left out where glslc does not know their extensions.
    if (layout.module.find("_coopmat") != std::string_view::npos) continue;
    EXPECT_FALSE(module_words(layout.module).empty()) << layout.module;
  }
}

TEST(LayoutHost, TheHostsOffsetsAreTheCompilers) {
  const std::vector<PushMember> members = struct_members<MoeGatePush>();
  ASSERT_EQ(members.size(), 12u);
  EXPECT_EQ(members[3], (PushMember{offsetof(MoeGatePush, weights), ScalarKind::kU64}));
  EXPECT_EQ(members[4], (PushMember{offsetof(MoeGatePush, experts), ScalarKind::kU32}));
  EXPECT_EQ(members[10], (PushMember{offsetof(MoeGatePush, scaling), ScalarKind::kF32}));
}

// The check itself: a module with one offset, or one member's type, changed must not pass.
TEST(LayoutHost, AMutatedModuleIsNoticed) {
  const std::span<const uint32_t> words = module_words("moe_gate");
  const std::vector<PushMember> right = struct_members<MoeGatePush>();
  ASSERT_TRUE(read_spirv(words).push == right);
  constexpr uint32_t kMemberDecorateOffset = (5u << 16) | 72u;
  uint32_t mutations = 0;
  for (size_t i = 5; i < words.size(); i += words[i] >> 16) {
    if (words[i] != kMemberDecorateOffset || words[i + 3] != 35 || words[i + 4] != 40) continue;
    std::vector<uint32_t> mutated(words.begin(), words.end());
    mutated[i + 4] += 4;
    EXPECT_FALSE(read_spirv(mutated).push == right);
    ++mutations;
  }
  EXPECT_EQ(mutations, 1u);
  EXPECT_NE(read_spirv(words.first(6)).error, "");
  EXPECT_NE(read_spirv(words.first(3)).error, "");
}

}  // namespace
}  // namespace hadal::test
