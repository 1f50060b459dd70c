#include "hadal/runtime/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

namespace hadal::runtime {

PageAllocator::PageAllocator(uint32_t pages) : total_(pages), free_(pages) {
  std::iota(free_.begin(), free_.end(),
            0u);  // ascending is already a heap with the smallest on top
}

Result<std::vector<uint32_t>> PageAllocator::take(uint32_t count) {
  if (count > free_.size()) {
    return Status(Errc::kOutOfDeviceMemory,
                  fmt::format("kv_cache: {} pages of {} tokens are needed, {} of {} are free",
                              count, kPageTokens, free_.size(), total_));
  }
  std::vector<uint32_t> pages;
  for (uint32_t i = 0; i < count; ++i) {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    pages.push_back(free_.back());
    free_.pop_back();
  }
  return pages;
}

void PageAllocator::give_back(std::span<const uint32_t> pages) {
  for (uint32_t page : pages) {
    free_.push_back(page);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
}

SequencePages::SequencePages(SequencePages&& other) noexcept
    : allocator_(other.allocator_), pages_(std::exchange(other.pages_, {})) {}

SequencePages& SequencePages::operator=(SequencePages&& other) noexcept {
  if (this != &other) {
    clear();
    allocator_ = other.allocator_;
    pages_ = std::exchange(other.pages_, {});
  }
  return *this;
}

SequencePages::~SequencePages() {
  clear();
}

Status SequencePages::reserve(uint32_t length) {
  const uint32_t needed = ceil_div(length, kPageTokens);
  if (needed <= pages_.size()) return {};
  HADAL_ASSIGN(const std::vector<uint32_t> more,
               allocator_->take(needed - uint32_t(pages_.size())));
  pages_.insert(pages_.end(), more.begin(), more.end());
  return {};
}

void SequencePages::clear() {
  allocator_->give_back(pages_);
  pages_.clear();
}

Result<KvCache> KvCache::create(Device& device, const model::ModelConfig& config, uint32_t pages,
                                CacheFormat format) {
  KvCache cache;
  const uint64_t bytes = model::cache_bytes(config, pages, format);
  const uint32_t layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  HADAL_ASSIGN(cache.buffer_, device.allocate(bytes));
  cache.view_.base = cache.buffer_.address();
  cache.view_.layer_stride_bytes = bytes / layers;
  cache.view_.pages = pages;
  cache.view_.row_stride = cache_row_stride(format, config.kv_lora_rank, config.qk_rope_head_dim);
  cache.view_.format = format;
  return cache;
}

}  // namespace hadal::runtime
