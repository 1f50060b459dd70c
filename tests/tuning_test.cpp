// The tuning table: file format, what is refused, and what choose() makes of it.
#include "hadal/tuning.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"

namespace hadal::test {
namespace {

Caps gpu_caps() {
  Caps caps = minimum_caps(32);
  caps.device_name = "A GPU 9000";
  caps.driver_version = 42;
  caps.pipeline_cache_uuid[0] = 0xab;
  caps.max_workgroup_invocations = 256;
  caps.max_shared_memory_bytes = 49152;
  return caps;
}

TuningTable example() {
  TuningTable table(gpu_caps());
  table.set(TunedKernel::kFp8Gemm, 16, 4096, 7168, {GemmPath::kPortable, 16, 1});
  table.set(TunedKernel::kFp8Gemm, 128, 4096, 7168, {GemmPath::kShared, 64, 64});
  table.set(TunedKernel::kFp8GroupedGemm, 16, 4096, 7168, {GemmPath::kShared, 16, 64});
  return table;
}

TEST(TuningHost, TheFileRoundTrips) {
  const std::string text = example().to_text();
  EXPECT_TRUE(text.starts_with("hadal-tuning 1\nhadal 0.1.0\ndevice A GPU 9000\ndriver 42 ab00"));
  EXPECT_NE(text.find("\nfp8_gemm 128 4096 7168 shared 64 64\n"), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with("\nend 3\n"));
  const Result<TuningTable> parsed = TuningTable::parse(text, gpu_caps());
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->to_text(), text);
  EXPECT_EQ(parsed->size(), 3u);
}

TEST(TuningHost, EveryPathRoundTrips) {
  for (GemmPath path : {GemmPath::kPortable, GemmPath::kScalar, GemmPath::kShared,
                        GemmPath::kCoopMat, GemmPath::kCoopMatFp8}) {
    TuningTable table(gpu_caps());
    table.set(TunedKernel::kFp8Gemm, 16, 512, 2048, {path, 16, 32});
    const Result<TuningTable> parsed = TuningTable::parse(table.to_text(), gpu_caps());
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    const TunedChoice* found = parsed->find(TunedKernel::kFp8Gemm, 16, 512, 2048);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(*found, (TunedChoice{path, 16, 32}));
  }
}

TEST(TuningHost, ADamagedFileIsRefusedByLine) {
  const std::string text = example().to_text();
  const auto refused = [](const std::string& damaged) {
    const Result<TuningTable> parsed = TuningTable::parse(damaged, gpu_caps());
    EXPECT_EQ(parsed.status().code(), Errc::kMalformed) << damaged;
    EXPECT_EQ(parsed.status().message().find('\n'), std::string::npos);
    return parsed.status().message();
  };
  const auto with = [&](const std::string& what, const std::string& by) {
    std::string damaged = text;
    return damaged.replace(damaged.find(what), what.size(), by);
  };
  EXPECT_EQ(refused(""), "tuning: line 1 must be 'hadal-tuning 1', got ''");
  EXPECT_EQ(refused("hadal-tuning 1\n"), "tuning: the file must have at least 5 lines, got 1");
  EXPECT_EQ(refused(with("shared 64", "magic 64")),
            "tuning: line 6 must be 'kernel m n k path tile_m tile_n', got "
            "'fp8_gemm 128 4096 7168 magic 64 64'");
  EXPECT_EQ(refused(with("fp8_gemm 16", "fp8_gemm -1")),
            "tuning: line 5 must be 'kernel m n k path tile_m tile_n', got "
            "'fp8_gemm -1 4096 7168 portable 16 1'");
  EXPECT_EQ(refused(with("end 3", "end 4")), "tuning: line 8 must be 'end 3', got 'end 4'");
  // Cut anywhere.
  for (size_t bytes = 0; bytes + 1 < text.size(); ++bytes) {
    EXPECT_FALSE(TuningTable::parse(text.substr(0, bytes), gpu_caps()).ok()) << bytes;
  }
}

TEST(TuningHost, AStaleFileIsRefused) {
  const std::string text = example().to_text();
  const auto refused = [](const std::string& file, const Caps& caps) {
    const Result<TuningTable> parsed = TuningTable::parse(file, caps);
    EXPECT_EQ(parsed.status().code(), Errc::kUnsupported);
    return parsed.status().message();
  };
  Caps other = gpu_caps();
  other.device_name = "Another";
  EXPECT_EQ(refused(text, other),
            "tuning: the file is stale, its device must be 'Another', got 'A GPU 9000'");
  other = gpu_caps();
  other.driver_version = 43;
  EXPECT_EQ(refused(text, other).find("tuning: the file is stale, its driver must be '43 ab"), 0u);
  other = gpu_caps();
  other.pipeline_cache_uuid[15] = 1;
  EXPECT_EQ(refused(text, other).find("tuning: the file is stale, its driver must be '42 ab"), 0u);
  std::string older = text;
  older.replace(older.find("hadal 0.1.0"), 11, "hadal 0.0.9");
  EXPECT_EQ(refused(older, gpu_caps()),
            "tuning: the file is stale, its hadal must be '0.1.0', got '0.0.9'");
}

TEST(TuningHost, TheNearestTunedMServes) {
  const TuningTable table = example();
  const auto m_tile = [&](uint32_t m) {
    return table.find(TunedKernel::kFp8Gemm, m, 4096, 7168)->tile_m;
  };
  EXPECT_EQ(m_tile(1), 16u);
  EXPECT_EQ(m_tile(16), 16u);
  EXPECT_EQ(m_tile(17), 64u);
  EXPECT_EQ(m_tile(4096), 64u);
  EXPECT_EQ(table.find(TunedKernel::kFp8Gemm, 16, 4096, 7169), nullptr);
  EXPECT_EQ(table.find(TunedKernel::kFp8Gemm, 16, 4095, 7168), nullptr);
  EXPECT_EQ(TuningTable(gpu_caps()).find(TunedKernel::kFp8Gemm, 1, 1, 1), nullptr);
}

TEST(TuningHost, TiesKeepTheDefault) {
  const auto pick = [](std::vector<double> ns) { return pick_fastest(ns); };
  EXPECT_EQ(pick({100, 97.1, 150}), 0u);
  EXPECT_EQ(pick({100, 96.9, 150}), 1u);
  EXPECT_EQ(pick({100, 96, 95}), 2u);
  EXPECT_EQ(pick({100, std::nan(""), 0}), 0u);
  EXPECT_EQ(pick({std::nan(""), 200, 150}), 2u);
  EXPECT_EQ(pick({}), 0u);
}

TEST(TuningHost, ChooseTakesTheTablesChoice) {
  TuningTable table = example();
  GemmPolicy policy;
  policy.tuning = &table;
  const auto choose = [&](uint32_t m) {
    return fp8_gemm_choose(Fp8GemmShape::packed(m, 4096, 7168), gpu_caps(), policy);
  };
  EXPECT_EQ(choose(16).path, GemmPath::kPortable);
  EXPECT_EQ(choose(16).tile_n, 1u);
  EXPECT_NE(choose(16).to_string().find("not shared: the tuning table measured another path"),
            std::string::npos)
      << choose(16).to_string();
  EXPECT_EQ(choose(128).path, GemmPath::kShared);
  EXPECT_EQ(choose(128).gpu_tile.tile_m, 64u);
  const auto grouped = fp8_grouped_gemm_choose(
      Fp8GroupedGemmShape::packed(16 * 256, 256, 4096, 7168), gpu_caps(), policy);
  EXPECT_EQ(grouped.path, GemmPath::kShared);
  EXPECT_EQ(grouped.tile_m, 16u);
  // Other shapes are not the table's.
  EXPECT_EQ(fp8_gemm_choose(Fp8GemmShape::packed(16, 64, 64), gpu_caps(), policy).path,
            fp8_gemm_choose(Fp8GemmShape::packed(16, 64, 64), gpu_caps()).path);

  // What the policy or the device excludes is not taken, and said.
  table.set(TunedKernel::kFp8Gemm, 16, 4096, 7168, {GemmPath::kCoopMat, 16, 64});
  EXPECT_EQ(choose(16).path, GemmPath::kShared);
  EXPECT_NE(choose(16).to_string().find(
                "not coopmat: the tuning table's choice, which this policy excludes"),
            std::string::npos)
      << choose(16).to_string();
  table.set(TunedKernel::kFp8Gemm, 16, 4096, 7168, {GemmPath::kShared, 3, 5});
  EXPECT_NE(choose(16).to_string().find("the tuning table's tile 3x5 is none of this device's"),
            std::string::npos)
      << choose(16).to_string();
  table.set(TunedKernel::kFp8Gemm, 16, 4096, 7168, {GemmPath::kPortable, 1000, 8});
  EXPECT_NE(choose(16).tile_m, 1000u);
}

// A tuner's winner is found again by choose() with the table that holds it.
TEST(TuningHost, EveryCandidateCanBeChosen) {
  for (const uint32_t m : {1u, 9u, 64u, 500u}) {
    const Fp8GemmShape shape = Fp8GemmShape::packed(m, 4096, 7168);
    const auto candidates = fp8_gemm_candidates(shape, gpu_caps());
    const Fp8GemmConfig chosen = fp8_gemm_choose(shape, gpu_caps());
    ASSERT_GT(candidates.size(), 4u);
    EXPECT_EQ(candidates[0].to_string(), chosen.to_string());
    for (const Fp8GemmConfig& c : candidates) {
      TuningTable table(gpu_caps());
      table.set(TunedKernel::kFp8Gemm, m, 4096, 7168, {c.path, c.tile_m, c.tile_n});
      GemmPolicy policy;
      policy.tuning = &table;
      const Fp8GemmConfig again = fp8_gemm_choose(shape, gpu_caps(), policy);
      EXPECT_EQ(again.path, c.path);
      EXPECT_EQ(again.tile_m, c.tile_m);
      EXPECT_EQ(again.tile_n, c.tile_n);
      EXPECT_EQ(again.gpu_tile, c.gpu_tile);
      EXPECT_EQ(again.workgroup_size, c.workgroup_size);
    }
  }
}

}  // namespace
}  // namespace hadal::test
