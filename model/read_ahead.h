// Brings the pages of a checkpoint into memory ahead of whoever reads them, on a thread of its own,
// so that the disk works while tensors are copied. Private.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace hadal::model {

class ReadAhead {
 public:
  using Fetch = std::function<void(std::span<const std::byte>)>;

  // `order` is what will be read, in this order; at most `window` bytes lie between what `fetch`
  // was called for and what was consumed. `fetch` is called on the thread, piece by piece, and must
  // be safe beside the reader. The thread ends with the object, at the latest after the piece that
  // it fetches at the time.
  ReadAhead(std::vector<std::span<const std::byte>> order, uint64_t window, Fetch fetch);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The reader is done with `bytes` more of the order.
  void consumed(uint64_t bytes);

  static constexpr uint64_t kPieceBytes = uint64_t{1} << 20;

 private:
  void run();
  enum class Turn { kFetch, kSkip, kStop };
  // Waits until the piece that ends at `end` may be fetched; it is skipped when the reader was
  // there first.
  [[nodiscard]] Turn wait_for(uint64_t end);

  std::vector<std::span<const std::byte>> order_;
  uint64_t window_;
  Fetch fetch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t consumed_ = 0;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace hadal::model
