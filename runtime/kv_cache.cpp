#include "hadal/runtime/kv_cache.h"

#include "hadal/types.h"

namespace hadal::runtime {

Result<KvCache> KvCache::create(Device& device, const model::ModelConfig& config, uint32_t pages,
                                CacheFormat format) {
  KvCache cache;
  const uint64_t bytes = model::cache_bytes(config, pages, format);
  cache.main_layers_ = config.num_hidden_layers;
  cache.mtp_layers_ = config.num_nextn_predict_layers;
  HADAL_ASSIGN(cache.buffer_, device.allocate(bytes));
  cache.view_.base = cache.buffer_.address();
  cache.view_.layer_stride_bytes = bytes / cache.layers();
  cache.view_.pages = pages;
  cache.view_.row_stride = cache_row_stride(format, config.kv_lora_rank, config.qk_rope_head_dim);
  cache.view_.format = format;
  return cache;
}

uint64_t KvCache::row_bytes() const {
  return uint64_t{view_.row_stride} * cache_stride_unit(view_.format);
}

}  // namespace hadal::runtime
