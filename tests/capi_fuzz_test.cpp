// A fuzz target per entry point of the C ABI that takes sizes: random descs and args, refused with
// a status and a message, or planned and recorded into a command buffer that is never submitted.
// What may not happen is a crash, a validation message, or an error without a text.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "support/capi.h"
#include "support/fuzz.h"

namespace hadal::test {
namespace {

using hadal::testing::FuzzRounds;

class CapiFuzzGpu : public CapiTest {
 protected:
  void SetUp() override {
    CapiTest::SetUp();
    if (!alive_) return;
    memory_ = buffer(1 << 16);
    commands_ = host_begin(&device_, device_.pool);
  }
  void TearDown() override {
    if (alive_) {
      EXPECT_EQ(HOST_DEVICE_FN(&device_, EndCommandBuffer)(commands_), VK_SUCCESS);
    }
    CapiTest::TearDown();
  }

  // Mostly sizes that kernels take, some at the edges of 32 bits.
  uint32_t size() {
    static constexpr uint32_t kEdges[] = {
        0,        1,        2,          127,        128,        129,        65535,     65536,
        1u << 24, 1u << 30, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff};
    switch (random_() % 8) {
      case 0: return kEdges[random_() % std::size(kEdges)];
      case 1: return uint32_t(random_());
      case 2: return random_() % 8;
      default: return 16 * (random_() % 40);
    }
  }
  hadal_range range() {
    hadal_range r{};
    switch (random_() % 10) {
      case 0: return r;
      case 1: r.address = memory_->address + random_() % 64; break;
      case 2: r.address = ~uint64_t{random_()}; break;
      case 3: r.buffer = memory_->buffer, r.offset = random_() % 4096; break;
      case 4: r.buffer = memory_->buffer, r.offset = random_() % 4096 / 16 * 16; break;
      default: r.address = memory_->address + random_() % 4096 / 16 * 16; break;
    }
    if (random_() % 2) r.bytes = random_() % 2 ? random_() % 65536 : ~uint64_t{0} - random_() % 64;
    return r;
  }
  // Fills everything behind struct_size with sizes, or for args with sizes and, from `ranges` on,
  // with ranges.
  template <class T>
  T filled(size_t ranges = sizeof(T)) {
    T value = sized<T>();
    auto* bytes = reinterpret_cast<unsigned char*>(&value);
    for (size_t at = sizeof(size_t); at + 4 <= ranges; at += 4) {
      // Zeros too, or no desc would ever have its tight strides.
      const uint32_t word = random_() % 2 ? 0 : size();
      std::memcpy(bytes + at, &word, 4);
    }
    for (size_t at = ranges; at + sizeof(hadal_range) <= sizeof(T); at += sizeof(hadal_range)) {
      const hadal_range r = range();
      std::memcpy(bytes + at, &r, sizeof(r));
    }
    return value;
  }
  void said_why(hadal_status status) {
    if (status == HADAL_OK) return;
    EXPECT_EQ(error_.status, status);
    EXPECT_NE(error_.message[0], 0);
    // Sizes are wrong or unsupported; nothing else may come of them.
    EXPECT_TRUE(status == HADAL_ERROR_INVALID_ARGUMENT || status == HADAL_ERROR_UNSUPPORTED)
        << error_.message;
  }

  // Random descs changed from `base` in a few words, each planned plan recorded with random args.
  // `ranges` is where the args' ranges begin.
  template <class Desc, class Args>
  void fuzz(PlanFn<Desc> make,
            hadal_status (*record)(const hadal_plan*, VkCommandBuffer, const Args*, hadal_error*),
            size_t ranges, const Desc& base) {
    int planned = 0, recorded = 0;
    for (FuzzRounds rounds(150); rounds.next();) {
      Desc desc = base;
      auto* words = reinterpret_cast<unsigned char*>(&desc);
      constexpr size_t kWords = (sizeof(Desc) - sizeof(size_t)) / 4;
      for (size_t changes = random_() % 4; changes > 0; --changes) {
        const uint32_t word = size();
        std::memcpy(words + sizeof(size_t) + 4 * (random_() % kWords), &word, 4);
      }
      if (random_() % 20 == 0) desc = filled<Desc>();
      error_ = HADAL_ERROR_INIT;
      hadal_plan* made = nullptr;
      const hadal_status status = make(context_, &desc, &made, &error_);
      said_why(status);
      ASSERT_EQ(made != nullptr, status == HADAL_OK);
      if (!made) continue;
      ++planned;
      EXPECT_LT(hadal_plan_scratch_bytes(made), uint64_t{1} << 56);
      for (int i = 0; i < 4; ++i) {
        Args args = filled<Args>(ranges);
        if (i < 2) {  // what a right call would have
          for (size_t at = sizeof(size_t); at + 4 <= ranges; at += 4) {
            const uint32_t few = random_() % 3;
            std::memcpy(reinterpret_cast<unsigned char*>(&args) + at, &few, 4);
          }
        }
        error_ = HADAL_ERROR_INIT;
        const hadal_status result = record(made, commands_, &args, &error_);
        said_why(result);
        recorded += result == HADAL_OK;
      }
      hadal_plan_destroy(made);
    }
    EXPECT_GT(planned, 0);
    EXPECT_GT(recorded, 0);
  }

  std::mt19937 random_{29};
  host_buffer* memory_ = nullptr;
  VkCommandBuffer commands_ = VK_NULL_HANDLE;
};

#define HADAL_FUZZ(kernel, first_range, base)         \
  fuzz<hadal_##kernel##_desc, hadal_##kernel##_args>( \
      hadal_##kernel##_plan, hadal_##kernel##_record, \
      offsetof(hadal_##kernel##_args, first_range), base)

TEST_F(CapiFuzzGpu, Fp8Quantize) {
  auto d = sized<hadal_fp8_quantize_desc>();
  d.rows = 4, d.k = 256;
  HADAL_FUZZ(fp8_quantize, x, d);
}
TEST_F(CapiFuzzGpu, Fp8Gemm) {
  auto d = sized<hadal_fp8_gemm_desc>();
  d.m = 4, d.n = 64, d.k = 256;
  HADAL_FUZZ(fp8_gemm, a, d);
}
TEST_F(CapiFuzzGpu, Fp8GroupedGemm) {
  auto d = sized<hadal_fp8_grouped_gemm_desc>();
  d.rows = 4, d.experts = 3, d.n = 64, d.k = 256;
  HADAL_FUZZ(fp8_grouped_gemm, a, d);
}
TEST_F(CapiFuzzGpu, Bf16Gemm) {
  auto d = sized<hadal_bf16_gemm_desc>();
  d.m = 4, d.n = 64, d.k = 256;
  HADAL_FUZZ(bf16_gemm, a, d);
}
TEST_F(CapiFuzzGpu, Bf16GroupedGemm) {
  auto d = sized<hadal_bf16_grouped_gemm_desc>();
  d.rows = 4, d.experts = 3, d.n = 64, d.k = 256;
  HADAL_FUZZ(bf16_grouped_gemm, a, d);
}
TEST_F(CapiFuzzGpu, RmsNorm) {
  auto d = sized<hadal_rms_norm_desc>();
  d.rows = 4, d.n = 256, d.flags = HADAL_RMS_NORM_Y;
  HADAL_FUZZ(rms_norm, x, d);
}
TEST_F(CapiFuzzGpu, Swiglu) {
  auto d = sized<hadal_swiglu_desc>();
  d.rows = 4, d.n = 256, d.flags = HADAL_SWIGLU_Y;
  HADAL_FUZZ(swiglu, gate, d);
  fuzz<hadal_swiglu_desc, hadal_swiglu_tiles_args>(hadal_swiglu_tiles_plan,
                                                   hadal_swiglu_tiles_record,
                                                   offsetof(hadal_swiglu_tiles_args, gate), d);
}
TEST_F(CapiFuzzGpu, Rope) {
  auto d = sized<hadal_rope_desc>();
  d.rows = 4, d.heads = 2, d.dim = 64, d.max_position = 100;
  HADAL_FUZZ(rope, x, d);
}
TEST_F(CapiFuzzGpu, Embedding) {
  auto d = sized<hadal_embedding_desc>();
  d.tokens = 4, d.hidden = 64, d.vocab = 100;
  HADAL_FUZZ(embedding, ids, d);
}
TEST_F(CapiFuzzGpu, MoeGate) {
  auto d = sized<hadal_moe_gate_desc>();
  d.tokens = 4, d.experts = 16, d.top_k = 2;
  HADAL_FUZZ(moe_gate, logits, d);
}
TEST_F(CapiFuzzGpu, MoePermute) {
  auto d = sized<hadal_moe_permute_desc>();
  d.tokens = 4, d.experts = 16, d.top_k = 2, d.tile_m = 4, d.command_count = 1;
  HADAL_FUZZ(moe_permute, indices, d);
}
TEST_F(CapiFuzzGpu, MoeCombine) {
  auto d = sized<hadal_moe_combine_desc>();
  d.tokens = 4, d.hidden = 64, d.top_k = 2;
  HADAL_FUZZ(moe_combine, x, d);
}
TEST_F(CapiFuzzGpu, MoeTiles) {
  auto d = sized<hadal_moe_tiles_desc>();
  d.experts = 3, d.rows = 9, d.tile_m = 4, d.command_count = 1;
  HADAL_FUZZ(moe_tiles, segments, d);
}
TEST_F(CapiFuzzGpu, MlaCacheWrite) {
  auto d = sized<hadal_mla_cache_write_desc>();
  d.tokens = 4, d.rank = 128, d.rope = 16, d.cache_rows = 64, d.max_position = 100;
  HADAL_FUZZ(mla_cache_write, y, d);
}
TEST_F(CapiFuzzGpu, MlaCacheRead) {
  auto d = sized<hadal_mla_cache_read_desc>();
  d.rank = 128, d.rope = 16, d.cache_rows = 64, d.table_pages = 1;
  HADAL_FUZZ(mla_cache_read, cache, d);
}
TEST_F(CapiFuzzGpu, MlaDecode) {
  auto d = sized<hadal_mla_decode_desc>();
  d.tokens = 4, d.heads = 4, d.rank = 64, d.rope = 16, d.max_kv_len = 64, d.cache_rows = 64;
  HADAL_FUZZ(mla_decode, q_latent, d);
}
TEST_F(CapiFuzzGpu, MlaPrefill) {
  auto d = sized<hadal_mla_prefill_desc>();
  d.q_len = 4, d.heads = 2, d.nope = 16, d.rope = 8, d.v = 16;
  HADAL_FUZZ(mla_prefill, q, d);
}
TEST_F(CapiFuzzGpu, MlaAbsorb) {
  auto d = sized<hadal_mla_absorb_desc>();
  d.tokens = 4, d.heads = 2, d.nope = 16, d.v = 16, d.rank = 64;
  HADAL_FUZZ(mla_absorb, in, d);
}
TEST_F(CapiFuzzGpu, Sample) {
  auto d = sized<hadal_sample_desc>();
  d.rows = 4, d.vocab = 100;
  HADAL_FUZZ(sample, logits, d);
}
TEST_F(CapiFuzzGpu, LogitAdjust) {
  auto d = sized<hadal_logit_adjust_desc>();
  d.rows = 4, d.vocab = 100, d.listed = 2, d.edits = 3, d.masks = 2, d.in_place = VK_TRUE;
  HADAL_FUZZ(logit_adjust, x, d);
}
TEST_F(CapiFuzzGpu, TopLogprobs) {
  auto d = sized<hadal_top_logprobs_desc>();
  d.rows = 4, d.vocab = 100, d.top = 3;
  HADAL_FUZZ(top_logprobs, logits, d);
}

// The functions of sizes that need no device.
TEST(CapiFuzzHost, SizesWithoutADevice) {
  std::mt19937 random(31);
  for (FuzzRounds rounds(2000); rounds.next();) {
    const auto size = [&] { return uint32_t(random()) >> random() % 32; };
    const uint32_t rows = size(), tile_m = size();
    const uint32_t tiles = hadal_grouped_gemm_max_tiles(rows, size(), tile_m);
    ASSERT_LE(tiles, rows);
    if (tile_m) {
      ASSERT_GE(uint64_t{tiles} * tile_m + tile_m, rows);
    }
    const uint32_t format = size() % 5;
    (void)hadal_cache_row_bytes(format, hadal_cache_row_stride(format, size(), size()));
  }
}

}  // namespace
}  // namespace hadal::test
