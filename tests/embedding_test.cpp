// embedding: a gather, compared bit for bit.
#include "hadal/embedding.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "hadal/recorder.h"
#include "hadal/reference/embedding.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"

namespace hadal::test {
namespace {

// table [vocab, hidden] dense; strides as in the shape.
std::vector<float> run(const EmbeddingShape& s, const std::vector<uint32_t>& ids,
                       const std::vector<uint16_t>& table) {
  GpuCase gpu(*device());
  GuardedBuffer& id = gpu.input(ids);
  GuardedBuffer& rows = gpu.input_rows(table, s.hidden, s.table_stride);
  GuardedBuffer& y = gpu.output(uint64_t{s.tokens} * s.y_stride * 4);
  const auto kernel = Embedding::create(*device(), embedding_choose(s, device()->caps()));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s, {id.address(), rows.address(), y.address()});
  });
  return gpu.rows<float>(y, s.tokens, s.hidden, s.y_stride);
}

class EmbeddingGpu : public GpuTest {};

TEST_F(EmbeddingGpu, GathersRowsOfEveryBitPattern) {
  uint32_t seed = 1;
  for (auto [tokens, hidden, vocab] : {std::array{1u, 1u, 1u},
                                       {3u, 7u, 5u},
                                       {5u, 257u, 300u},
                                       {2u, 7168u, 11u},
                                       {67u, 129u, 13u}}) {
    Random random(seed++);
    EmbeddingShape s = EmbeddingShape::packed(tokens, hidden, vocab);
    std::vector<uint16_t> table(size_t(vocab) * hidden);
    for (uint16_t& v : table) v = uint16_t(random.bits());  // NaN, infinities, subnormals too
    std::vector<uint32_t> ids(tokens);
    for (uint32_t& id : ids) id = random.below(vocab);
    ids.back() = vocab - 1;
    const std::vector<float> expected = reference::embedding(s, ids.data(), table.data());
    EXPECT_TRUE(same_bits(run(s, ids, table), expected, hidden));
    s.table_stride += 3, s.y_stride += 5;
    EXPECT_TRUE(same_bits(run(s, ids, table), expected, hidden));
  }
}

TEST_F(EmbeddingGpu, AnUnknownIdGivesNanAndReadsNothingOutside) {
  const EmbeddingShape s = EmbeddingShape::packed(4, 37, 3);
  const std::vector<uint16_t> table(3 * 37, 0x3f80);
  const std::vector<float> y = run(s, {2, 3, 0xffffffffu, 0}, table);
  for (size_t i = 0; i < y.size(); ++i) {
    if (i / 37 == 1 || i / 37 == 2) {
      EXPECT_TRUE(std::isnan(y[i])) << i;
    } else {
      EXPECT_EQ(y[i], 1.0f) << i;
    }
  }
  const std::vector<float> none = run(EmbeddingShape::packed(1, 2, 0), {0}, {});
  EXPECT_TRUE(std::isnan(none[0]) && std::isnan(none[1]));
}

TEST_F(EmbeddingGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run(EmbeddingShape::packed(0, 4, 2), {}, std::vector<uint16_t>(8)).empty());
  EXPECT_TRUE(run(EmbeddingShape::packed(3, 0, 2), {0, 1, 0}, {}).empty());
}

TEST_F(EmbeddingGpu, RefusesMisalignedAddresses) {
  const auto s = EmbeddingShape::packed(1, 4, 2);
  const auto kernel = Embedding::create(*device(), embedding_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  EXPECT_EQ(kernel->record(*recorder, s, {0x1000, 0x2001, 0x3000}).message(),
            "embedding: ids and y must be 4-byte and table 2-byte aligned, got 0x1000, 0x3000, "
            "0x2001");
}

TEST(EmbeddingHost, RefusesEveryBrokenRuleByName) {
  const auto refused = [](const std::function<void(EmbeddingShape&)>& change) {
    EmbeddingShape shape = EmbeddingShape::packed(4, 200, 10);
    change(shape);
    const Status status = embedding_check(shape, minimum_caps());
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(embedding_check(EmbeddingShape::packed(4, 200, 10), minimum_caps()).ok());
  EXPECT_EQ(refused([](auto& s) { s.hidden = 1u << 21; }),
            "embedding: hidden must be at most 1048576, got 2097152");
  EXPECT_EQ(refused([](auto& s) { s.table_stride = 199; }),
            "embedding: table_stride must be at least hidden, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 199; }),
            "embedding: y_stride must be at least hidden, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 65536; }),
            "embedding: tokens must be at most 65535, got 65536");
}

TEST(EmbeddingHost, ChoicePrintsItself) {
  EXPECT_EQ(embedding_choose({}, minimum_caps()).to_string().find("embedding: workgroup "), 0u);
}

}  // namespace
}  // namespace hadal::test
