// The tests' own tools: that memory behind an operand's end is watched.
#include <algorithm>

#include "hadal/embedding.h"
#include "support/fenced_memory.h"
#include "support/gpu.h"

namespace hadal::test {
namespace {

class GpuSupportGpu : public GpuTest {};

TEST(GpuSupportHost, AnAccessBehindFencedMemoryIsFoundAndLetThrough) {
  FencedMemory memory(5000);
  std::ranges::fill(memory.bytes(), std::byte{1});
  EXPECT_EQ(memory.take_overrun(), -1);
  const volatile std::byte* end = memory.bytes().data() + memory.bytes().size();
  for (int64_t offset : {0, 511, 40000}) {
    EXPECT_EQ(int(end[-1]), 1);
    EXPECT_EQ(int(end[offset]), 0);
    EXPECT_EQ(memory.take_overrun(), offset);
    EXPECT_EQ(memory.take_overrun(), -1);
  }
}

// A table of three rows whose fourth is asked for.
TEST_F(GpuSupportGpu, AShaderThatReadsPastAnOperandIsFound) {
  if (!device()->caps().is_cpu || device()->caps().host_import_alignment == 0) {
    GTEST_SKIP() << "not a CPU driver, or no VK_EXT_external_memory_host";
  }
  EmbeddingShape shape = EmbeddingShape::packed(1, 64, 4);
  GpuCase gpu(*device());
  GuardedBuffer& ids = gpu.input(std::vector<uint32_t>{3});
  GuardedBuffer& table = gpu.input(std::vector<uint16_t>(3 * 64, 0x3f80));
  GuardedBuffer& y = gpu.output(64 * 4);
  Result<Embedding> kernel =
      Embedding::create(*device(), embedding_choose(shape, device()->caps()));
  ASSERT_TRUE(kernel.ok()) << kernel.status().message();
  Result<Recorder> recorder = Recorder::create(*device(), {});
  ASSERT_TRUE(recorder.ok());
  ASSERT_TRUE(kernel->record(*recorder, shape, {ids.address(), table.address(), y.address()}).ok());
  ASSERT_TRUE(recorder->end().ok());
  ASSERT_TRUE(device()->run(*recorder).ok());
  const int64_t overrun = table.take_overrun();
  EXPECT_GE(overrun, 0);
  EXPECT_LT(overrun, 64 * 2);
  EXPECT_EQ(ids.take_overrun(), -1);
  EXPECT_EQ(y.take_overrun(), -1);
}

}  // namespace
}  // namespace hadal::test
