// The paged latent cache: device memory for pages of 64 rows, and the pages of each sequence.
// Paging is host policy only; kernels see slots and block tables.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/status.h"

namespace hadal::runtime {

inline constexpr uint32_t kPageTokens = 64;

// Pages not in use. Not thread-safe. Pages are handed out lowest first, so that runs repeat.
class PageAllocator {
 public:
  explicit PageAllocator(uint32_t pages);
  [[nodiscard]] uint32_t free_pages() const { return uint32_t(free_.size()); }
  [[nodiscard]] uint32_t total_pages() const { return total_; }
  // Errors: kOutOfDeviceMemory with the numbers; then nothing is taken.
  [[nodiscard]] Result<std::vector<uint32_t>> take(uint32_t count);
  void give_back(std::span<const uint32_t> pages);

 private:
  uint32_t total_ = 0;
  std::vector<uint32_t> free_;  // a heap, smallest on top
};

// Pages and length of one sequence. Move-only; gives its pages back when it ends.
class SequencePages {
 public:
  explicit SequencePages(PageAllocator& allocator) : allocator_(&allocator) {}
  SequencePages(SequencePages&& other) noexcept;
  SequencePages& operator=(SequencePages&& other) noexcept;
  ~SequencePages();

  // Makes room for `length` positions in all.
  [[nodiscard]] Status reserve(uint32_t length);
  // Cache row of a reserved position.
  [[nodiscard]] uint32_t slot(uint32_t position) const {
    return pages_[position / kPageTokens] * kPageTokens + position % kPageTokens;
  }
  [[nodiscard]] std::span<const uint32_t> block_table() const { return pages_; }
  [[nodiscard]] uint32_t capacity() const { return uint32_t(pages_.size()) * kPageTokens; }
  void clear();

 private:
  PageAllocator* allocator_;
  std::vector<uint32_t> pages_;
};

// The device memory of the cache.
class KvCache {
 public:
  // Errors: kOutOfDeviceMemory.
  [[nodiscard]] static Result<KvCache> create(Device& device, const model::ModelConfig& config,
                                              uint32_t pages, CacheFormat format);
  [[nodiscard]] const model::CacheView& view() const { return view_; }
  [[nodiscard]] uint64_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  model::CacheView view_;
};

}  // namespace hadal::runtime
