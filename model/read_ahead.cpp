#include "read_ahead.h"

#include <algorithm>

namespace hadal::model {

ReadAhead::ReadAhead(std::vector<std::span<const std::byte>> order, uint64_t window, Fetch fetch)
    : order_(std::move(order)),
      window_(std::max(window, kPieceBytes)),
      fetch_(std::move(fetch)),
      thread_([this] { run(); }) {}

ReadAhead::~ReadAhead() {
  {
    std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ReadAhead::consumed(uint64_t bytes) {
  {
    std::scoped_lock lock(mutex_);
    consumed_ += bytes;
  }
  changed_.notify_one();
}

ReadAhead::Turn ReadAhead::wait_for(uint64_t end) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stop_ || end <= consumed_ + window_; });
  return stop_ ? Turn::kStop : end <= consumed_ ? Turn::kSkip : Turn::kFetch;
}

void ReadAhead::run() {
  uint64_t position = 0;  // in the order, as `consumed_` counts it
  for (const std::span<const std::byte> part : order_) {
    for (uint64_t at = 0; at < part.size(); at += kPieceBytes) {
      const auto piece = part.subspan(at, std::min<uint64_t>(kPieceBytes, part.size() - at));
      position += piece.size();
      const Turn turn = wait_for(position);
      if (turn == Turn::kStop) return;
      if (turn == Turn::kFetch) fetch_(piece);
    }
  }
}

}  // namespace hadal::model
