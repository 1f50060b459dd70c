#include "hadal/runtime/page_transfer.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/types.h"

namespace hadal::runtime {

Result<HostPages> HostPages::create(Device& device, uint64_t page_bytes, uint32_t pages) {
  // One allocation of many GiB fails where several do not.
  constexpr uint64_t kMostBytes = uint64_t{1} << 30;
  const Caps& caps = device.caps();
  const uint64_t most = std::min({caps.max_allocation_bytes, caps.max_buffer_bytes, kMostBytes});
  HostPages host;
  host.page_bytes_ = page_bytes, host.pages_ = pages;
  host.pages_per_buffer_ = uint32_t(std::clamp<uint64_t>(most / page_bytes, 1, 1u << 30));
  for (uint32_t first = 0; first < pages; first += host.pages_per_buffer_) {
    const uint64_t count = std::min(pages - first, host.pages_per_buffer_);
    HADAL_ASSIGN(Buffer buffer, device.allocate(count * page_bytes, MemoryKind::kReadback));
    host.buffers_.push_back(std::move(buffer));
  }
  return host;
}

HostPages::Place HostPages::place(uint32_t index) const {
  return {&buffers_[index / pages_per_buffer_], index % pages_per_buffer_ * page_bytes_};
}

std::span<std::byte> HostPages::bytes(uint32_t index) const {
  const Place at = place(index);
  return at.buffer->mapped().subspan(at.offset, page_bytes_);
}

PageTransfer::PageTransfer(Device& device, const KvCache& cache, Recorder recorder)
    : device_(&device),
      cache_(&cache),
      recorder_(std::move(recorder)),
      layers_(cache.layers()),
      piece_bytes_(kPageTokens * cache.row_bytes()) {}

Result<PageTransfer> PageTransfer::create(Device& device, const KvCache& cache,
                                          const RecorderOptions& options) {
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device, options));
  return PageTransfer(device, cache, std::move(recorder));
}

Status PageTransfer::record(std::span<const PageMoves> moves, bool out) {
  const auto refuse = [](const char* what, uint32_t limit, uint32_t page) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("page_transfer: {} must be below {}, got {}", what, limit, page));
  };
  const model::CacheView& view = cache_->view();
  for (const PageMoves& part : moves) {
    for (const PageMove& move : part.pages) {
      if (move.cache_page >= view.pages) {
        return refuse("pages of the cache", view.pages, move.cache_page);
      }
      if (move.host_page >= part.host->pages()) {
        return refuse("host pages", part.host->pages(), move.host_page);
      }
      const HostPages::Place host = part.host->place(move.host_page);
      for (uint64_t layer = 0; layer < layers_; ++layer) {
        const uint64_t there = layer * view.layer_stride_bytes + move.cache_page * piece_bytes_;
        const uint64_t here = host.offset + layer * piece_bytes_;
        HADAL_TRY(out ? recorder_.copy(cache_->buffer(), there, *host.buffer, here, piece_bytes_)
                      : recorder_.copy(*host.buffer, here, cache_->buffer(), there, piece_bytes_));
      }
    }
  }
  return {};
}

Status PageTransfer::run(std::span<const PageMoves> out, std::span<const PageMoves> in) {
  HADAL_TRY(recorder_.reset());
  HADAL_TRY(record(out, true));
  recorder_.barrier();
  HADAL_TRY(record(in, false));
  HADAL_TRY(recorder_.end());
  return device_->run(recorder_);
}

}  // namespace hadal::runtime
