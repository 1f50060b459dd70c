#include "hadal/runtime/page_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <functional>
#include <numeric>
#include <string_view>

#include "hadal/types.h"

namespace hadal::runtime {

size_t PagePool::ContentHash::operator()(const Content& content) const {
  const std::string_view bytes(reinterpret_cast<const char*>(content.ids.data()),
                               sizeof content.ids);
  return std::hash<std::string_view>()(bytes) ^
         std::hash<uint64_t>()(content.parent * 2 + uint64_t(content.origin)) * 0x9e3779b97f4a7c15u;
}

PagePool::PagePool(uint32_t pages) : pages_(pages), free_(pages) {
  std::iota(free_.begin(), free_.end(), 0u);  // ascending is a heap with the smallest on top
}

PagePoolStats PagePool::stats() const {
  PagePoolStats stats = stats_;
  stats.total = total_pages(), stats.free = uint32_t(free_.size());
  stats.cached = uint32_t(cached_.size());
  stats.used = stats.total - stats.free - stats.cached;
  return stats;
}

Result<std::vector<uint32_t>> PagePool::take(uint32_t count) {
  if (count > free_pages()) {
    return Status(Errc::kOutOfDeviceMemory,
                  fmt::format("kv_cache: {} pages of {} tokens are needed, {} of {} are free",
                              count, kPageTokens, free_pages(), total_pages()));
  }
  std::vector<uint32_t> taken;
  while (taken.size() < count) {
    if (free_.empty()) {
      // A sequence gives its last pages back first, so what goes first is what nothing follows.
      const uint32_t page = cached_.begin()->second;
      cached_.erase(cached_.begin());
      known_.erase(known_.find(*pages_[page].content));
      pages_[page].content = nullptr;
      ++stats_.evicted_pages;
      taken.push_back(page);
    } else {
      std::pop_heap(free_.begin(), free_.end(), std::greater<>());
      taken.push_back(free_.back());
      free_.pop_back();
    }
    pages_[taken.back()].references = 1;
  }
  return taken;
}

void PagePool::retain(std::span<const uint32_t> pages) {
  for (uint32_t index : pages) {
    Page& page = pages_[index];
    if (page.references++ == 0) cached_.erase({page.released, index});
  }
}

void PagePool::give_back(std::span<const uint32_t> pages) {
  for (size_t i = pages.size(); i-- > 0;) {
    Page& page = pages_[pages[i]];
    assert(page.references > 0);
    if (--page.references > 0) continue;
    if (page.content) {
      page.released = ++last_release_;
      cached_.emplace(page.released, pages[i]);
    } else {
      free_.push_back(pages[i]);
      std::push_heap(free_.begin(), free_.end(), std::greater<>());
    }
  }
}

const PagePool::Known* PagePool::find(uint64_t parent, PageOrigin origin,
                                      std::span<const uint32_t> ids) const {
  Content content{parent, origin, {}};
  std::copy_n(ids.begin(), kPageTokens, content.ids.begin());
  const auto found = known_.find(content);
  return found == known_.end() ? nullptr : &found->second;
}

std::vector<uint32_t> PagePool::match(std::span<const uint32_t> ids, bool generated) {
  std::vector<uint32_t> pages;
  uint64_t parent = 0;
  stats_.wanted_pages += ids.size() / kPageTokens;
  for (size_t at = 0; at + kPageTokens <= ids.size(); at += kPageTokens) {
    const auto page_ids = ids.subspan(at, kPageTokens);
    const Known* known = find(parent, PageOrigin::kPrefill, page_ids);
    if (!known && generated) known = find(parent, PageOrigin::kGenerated, page_ids);
    if (!known) break;
    pages.push_back(known->page);
    parent = known->serial;
  }
  retain(pages);
  stats_.matched_pages += pages.size();
  return pages;
}

void PagePool::publish(std::span<const uint32_t> ids, std::span<const uint32_t> pages,
                       PageOrigin origin) {
  uint64_t parent = 0;
  for (size_t i = 0; (i + 1) * kPageTokens <= ids.size(); ++i) {
    const auto page_ids = ids.subspan(i * kPageTokens, kPageTokens);
    // What prefill wrote stays what it is when the sequence's later rows are generated.
    const Known* known = find(parent, PageOrigin::kPrefill, page_ids);
    if (!known && origin == PageOrigin::kGenerated) known = find(parent, origin, page_ids);
    if (known) {
      parent = known->serial;
      continue;
    }
    if (pages_[pages[i]].content) return;  // known as something that is no longer found
    Content content{parent, origin, {}};
    std::copy_n(page_ids.begin(), kPageTokens, content.ids.begin());
    const auto [entry, added] = known_.emplace(content, Known{pages[i], ++last_serial_});
    pages_[pages[i]].content = &entry->first;
    parent = entry->second.serial;
  }
}

void PagePool::forget(uint32_t index) {
  Page& page = pages_[index];
  if (!page.content) return;
  assert(page.references > 0);
  known_.erase(known_.find(*page.content));
  page.content = nullptr;
}

void PagePool::forget_all() {
  for (Page& page : pages_) page.content = nullptr;
  known_.clear();
  for (const auto& [released, index] : cached_) {
    free_.push_back(index);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
  cached_.clear();
}

SequencePages::SequencePages(SequencePages&& other) noexcept
    : pool_(other.pool_), pages_(std::exchange(other.pages_, {})) {}

SequencePages& SequencePages::operator=(SequencePages&& other) noexcept {
  if (this != &other) {
    clear();
    pool_ = other.pool_;
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
  HADAL_ASSIGN(const std::vector<uint32_t> more, pool_->take(needed - uint32_t(pages_.size())));
  pages_.insert(pages_.end(), more.begin(), more.end());
  return {};
}

uint32_t SequencePages::reuse(std::span<const uint32_t> prompt, bool generated) {
  assert(pages_.empty());
  if (prompt.empty()) return 0;
  pages_ = pool_->match(prompt.first(prompt.size() - 1), generated);
  return capacity();
}

void SequencePages::publish(std::span<const uint32_t> ids, PageOrigin origin) {
  assert(ids.size() / kPageTokens <= pages_.size());
  pool_->publish(ids, pages_, origin);
}

SequencePages SequencePages::fork() const {
  SequencePages copy(*pool_);
  pool_->retain(pages_);
  copy.pages_ = pages_;
  return copy;
}

Result<std::optional<PageCopy>> SequencePages::make_writable(uint32_t position) {
  uint32_t& page = pages_[position / kPageTokens];
  if (pool_->references(page) == 1) {
    pool_->forget(page);
    return std::optional<PageCopy>();
  }
  HADAL_ASSIGN(const std::vector<uint32_t> own, pool_->take(1));
  const PageCopy copy{page, own[0]};
  pool_->give_back({&page, 1});
  page = own[0];
  return std::optional<PageCopy>(copy);
}

void SequencePages::truncate(uint32_t length) {
  const size_t kept = std::min<size_t>(ceil_div(length, kPageTokens), pages_.size());
  pool_->give_back(std::span(pages_).subspan(kept));
  pages_.resize(kept);
}

}  // namespace hadal::runtime
