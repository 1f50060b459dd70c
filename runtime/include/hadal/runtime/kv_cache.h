// Device memory of the paged latent cache; hadal/runtime/page_pool.h says who holds which page.
#pragma once

#include <cstdint>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/runtime/page_pool.h"
#include "hadal/status.h"

namespace hadal::runtime {

// The device memory of the cache.
class KvCache {
 public:
  // Errors: kOutOfDeviceMemory.
  [[nodiscard]] static Result<KvCache> create(Device& device, const model::ModelConfig& config,
                                              uint32_t pages, CacheFormat format);
  [[nodiscard]] const model::CacheView& view() const { return view_; }
  [[nodiscard]] uint64_t bytes() const { return buffer_.bytes(); }
  [[nodiscard]] const Buffer& buffer() const { return buffer_; }
  [[nodiscard]] uint32_t layers() const { return main_layers_ + mtp_layers_; }
  [[nodiscard]] uint32_t main_layers() const { return main_layers_; }
  [[nodiscard]] uint64_t row_bytes() const;  // of one layer, padding included

 private:
  Buffer buffer_;
  model::CacheView view_;
  uint32_t main_layers_ = 0, mtp_layers_ = 0;
};

}  // namespace hadal::runtime
