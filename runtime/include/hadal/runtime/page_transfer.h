// Pages of the cache to host memory and back. A page's rows lie in one piece for each layer of the
// cache; in host memory the pieces follow each other, so that a page is one run of bytes there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/swap.h"
#include "hadal/status.h"

namespace hadal::runtime {

// Host memory that the device reads and writes, in pages of `page_bytes`. Movable.
class HostPages {
 public:
  HostPages() = default;  // none
  // In buffers of at most 1 GiB (and the device's limits), page_bytes at least 1. Errors:
  // kOutOfDeviceMemory with the numbers.
  [[nodiscard]] static Result<HostPages> create(Device& device, uint64_t page_bytes,
                                                uint32_t pages);
  [[nodiscard]] uint32_t pages() const { return pages_; }
  // Where page `index` (below pages()) lies.
  struct Place {
    const Buffer* buffer = nullptr;
    uint64_t offset = 0;
  };
  [[nodiscard]] Place place(uint32_t index) const;
  [[nodiscard]] std::span<std::byte> bytes(uint32_t index) const;

 private:
  std::vector<Buffer> buffers_;
  uint64_t page_bytes_ = 0;
  uint32_t pages_ = 0, pages_per_buffer_ = 1;
};

// Moves between `host` and the cache.
struct PageMoves {
  const HostPages* host = nullptr;
  std::span<const PageMove> pages;
};

class PageTransfer {
 public:
  // The cache must outlive the transfer. Not thread-safe.
  [[nodiscard]] static Result<PageTransfer> create(Device& device, const KvCache& cache,
                                                   const RecorderOptions& options = {});
  // Of a page of all layers, in host memory.
  [[nodiscard]] uint64_t page_bytes() const { return layers_ * piece_bytes_; }
  // Copies all of `out` from the cache, then all of `in` into it, in one submission, and waits. No
  // page may be written twice by one direction. Errors: kInvalidArgument for a page that is not
  // there; those of the device.
  [[nodiscard]] Status run(std::span<const PageMoves> out, std::span<const PageMoves> in);

 private:
  PageTransfer(Device& device, const KvCache& cache, Recorder recorder);
  [[nodiscard]] Status record(std::span<const PageMoves> moves, bool out);
  Device* device_;
  const KvCache* cache_;
  Recorder recorder_;
  uint64_t layers_, piece_bytes_;  // a page's rows of one layer
};

}  // namespace hadal::runtime
