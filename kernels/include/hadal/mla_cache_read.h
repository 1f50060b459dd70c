// mla_cache_read: gathers positions [begin, begin + rows) of one sequence out of the paged cache:
// latent[i] = cache[slot][:rank], k_pe[i] = cache[slot][rank:], and q, scale =
// fp8_quantize(latent), with slot = block_table[p / 64] * 64 + p % 64, p = begin + i. Prefill
// expands the latents with kv_b_proj.
//
//   cache        [cache_rows] rows of rank + rope channels: float, bfloat16, or the FP8 row of
//                hadal/cache_format.h; row stride row_stride
//   block_table  uint32 [table_pages]: the sequence's pages (layout/kv_page.h)
//   latent       float [rows, rank], row stride latent_stride; 0: not wanted
//   k_pe         float [rows, rope], row stride k_pe_stride; 0: not wanted
//   q            e4m3 [rows, rank], row stride q_stride bytes; 0: not wanted
//   scale        float [rows, ceil(rank/128)], row stride scale_stride; with q
//
// Of an FP8 row, latent is code * scale, rounded once, and q and scale are the codes and scales as
// they are stored, whatever scale_format says: nothing is quantised twice.
//
// Requirements: addresses multiples of their element, q and an FP8 cache of 16; begin + rows <= 64
// * table_pages; any rows, rank, rope >= 0. A page past cache_rows reads as NaN (codes 0, scales
// NaN).
//
// Contract: reads the table's entries of these positions and the rows they name (the whole cache is
// declared, the host does not know the rows), writes the wanted outputs and no padding. No scratch.
// record() may be called from several threads on different recorders. Determinism: exact; q and
// scale are bit-equal to fp8_quantize (hadal/fp8_quantize.h).
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.1; vLLM's chunked-context MLA
// prefill.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/cache_format.h"
#include "hadal/caps.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct MlaCacheReadShape {
  uint32_t begin = 0, rows = 0, rank = 0, rope = 0;
  uint32_t row_stride = 0;     // elements, at least rank + rope (FP8: bytes)
  uint32_t latent_stride = 0;  // elements, at least rank
  uint32_t k_pe_stride = 0;    // elements, at least rope
  uint32_t q_stride = 0;       // bytes, at least rank
  uint32_t scale_stride = 0;   // elements, at least ceil(rank/128)
  uint32_t cache_rows = 0;
  uint32_t table_pages = 0;
  ScaleFormat scale_format = ScaleFormat::kFp32;
  CacheFormat cache_format = CacheFormat::kF32;

  // Tightest strides, and the fewest pages that hold the positions.
  [[nodiscard]] static MlaCacheReadShape packed(uint32_t begin, uint32_t rows, uint32_t rank,
                                                uint32_t rope, uint32_t cache_rows,
                                                CacheFormat format = CacheFormat::kF32);
};

struct MlaCacheReadArgs {
  DeviceAddress cache = 0, block_table = 0, latent = 0, k_pe = 0, q = 0, scale = 0;
};

struct MlaCacheReadConfig {
  uint32_t workgroup_size = 0;  // 4, 8, 16 or 32
  CacheFormat cache_format = CacheFormat::kF32;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status mla_cache_read_check(const MlaCacheReadShape& shape, const Caps& caps);
// Pure; requires mla_cache_read_check to be ok.
[[nodiscard]] MlaCacheReadConfig mla_cache_read_choose(const MlaCacheReadShape& shape,
                                                       const Caps& caps);

class MlaCacheRead {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MlaCacheRead> create(Device& device,
                                                   const MlaCacheReadConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned q, a q without
  // scale, or a shape whose cache_format is not the configuration's; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MlaCacheReadShape& shape,
                              const MlaCacheReadArgs& args) const;

 private:
  MlaCacheRead(const Device& device, const vk::Pipeline* pipeline, MlaCacheReadConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MlaCacheReadConfig config_;
};

}  // namespace hadal
