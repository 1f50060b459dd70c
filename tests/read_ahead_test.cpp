// The thread that reads a checkpoint ahead of its copy.
#include "read_ahead.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "support/random.h"

namespace hadal::model {
namespace {

constexpr uint64_t kPiece = ReadAhead::kPieceBytes;

// Addresses are never read: the spans stand for parts of a mapped file.
std::span<const std::byte> part(uint64_t at, uint64_t bytes) {
  return {reinterpret_cast<const std::byte*>(uintptr_t{1} << 32) + at, bytes};
}

// What was fetched, with how far the reader was at the time.
struct Fetched {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::span<const std::byte>> pieces;
  uint64_t bytes = 0;
  void add(std::span<const std::byte> piece) {
    std::scoped_lock lock(mutex);
    pieces.push_back(piece), bytes += piece.size();
    changed.notify_all();
  }
  void wait_for(uint64_t count) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return bytes >= count; }));
  }
  ReadAhead::Fetch fetch() {
    return [this](std::span<const std::byte> piece) { add(piece); };
  }
};

TEST(ReadAheadHost, FetchesTheOrderAndNoFurtherThanItsWindow) {
  Fetched fetched;
  const std::vector<std::span<const std::byte>> order = {
      part(100, 3 * kPiece + 5), part(9 * kPiece, 7), part(0, 0), part(20 * kPiece, 4 * kPiece)};
  ReadAhead ahead(order, 4 * kPiece, fetched.fetch());
  fetched.wait_for(3 * kPiece + 12);  // the next piece would end behind the window
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  {
    std::scoped_lock lock(fetched.mutex);
    EXPECT_EQ(fetched.bytes, 3 * kPiece + 12);
    EXPECT_EQ(fetched.pieces[0].data(), part(100, 1).data());
    EXPECT_EQ(fetched.pieces[3].size(), 5u);
    EXPECT_EQ(fetched.pieces[4].data(), part(9 * kPiece, 1).data());
  }
  ahead.consumed(12);
  fetched.wait_for(4 * kPiece + 12);
  ahead.consumed(3 * kPiece);
  fetched.wait_for(7 * kPiece + 12);
}

TEST(ReadAheadHost, SkipsWhatTheReaderHasReadBefore) {
  Fetched fetched;
  std::mutex hold;
  std::unique_lock held(hold);
  ReadAhead ahead({part(0, kPiece), part(kPiece, 50 * kPiece), part(90 * kPiece, 3)}, kPiece,
                  [&](std::span<const std::byte> piece) {
                    std::scoped_lock wait(hold);
                    fetched.add(piece);
                  });
  ahead.consumed(51 * kPiece);  // while the first piece is being fetched, or before
  held.unlock();
  for (bool done = false; !done; std::this_thread::yield()) {
    std::scoped_lock lock(fetched.mutex);
    done = !fetched.pieces.empty() && fetched.pieces.back().size() == 3;
    EXPECT_LE(fetched.pieces.size(), 2u);
  }
}

// However far it is, with and without a reader.
TEST(ReadAheadHost, EndsAtAnyTime) {
  test::Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::atomic<uint64_t> bytes = 0;
    ReadAhead ahead({part(0, 100 * kPiece)}, kPiece * (1 + random.below(9)),
                    [&](std::span<const std::byte> piece) { bytes += piece.size(); });
    for (uint32_t i = random.below(20); i > 0; --i) ahead.consumed(random.below(2 * kPiece));
  }
}

}  // namespace
}  // namespace hadal::model
