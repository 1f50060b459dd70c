// mla_cache_write: cache[slots[t]] = [rms_norm(y[t, :rank]) * weight | rope(y[t, rank:])], what MLA
// keeps of a token: the normalised latent and the rotated key that all heads share.
// rms_norm(x) = x / sqrt(mean(x^2) + eps).
//
//   y          float [tokens, rank + rope], row stride y_stride (kv_a_proj_with_mqa's output)
//   weight     float [rank] (kv_a_layernorm)
//   positions  uint32 [tokens]
//   table      float [max_position, rope/2, 2] (rope_table in hadal/rope.h); pairs of channels are
//              (2i, 2i+1) when interleaved, (i, i + rope/2) otherwise, and keep their places
//   slots      uint32 [tokens]: the token's row of the cache, page * kKvPageTokens +
//              position % kKvPageTokens; kKvNoSlot (and any other row past cache_rows): not stored
//   cache      [cache_rows] rows of rank + rope channels: float, bfloat16, or the FP8 row of
//              hadal/cache_format.h; row stride row_stride
//
// Rounding: an FP8 model quantises the latent in front of kv_b_proj. Stored rounded already
// (LatentRounding), the absorbed form of decode, which never runs kv_b_proj, sees the same keys and
// values as the unabsorbed form of prefill; kernels/mla_cache_write.md has the measured distance.
// An FP8 row holds fp8_quantize's codes and scales of the normalised latent, with FP32 scales for
// kNone and kFp8 and power-of-two ones for kFp8Ue8m0: the latents of a float cache of that
// rounding, value for value. A group with a NaN or an infinity has codes 0 and a NaN scale. The
// rotated key of bfloat16 and FP8 rows rounds to nearest even.
//
// Requirements: rope even; addresses multiples of their element, an FP8 cache of 16; no two tokens
// share a slot; any tokens, rank, rope >= 0. A position past the table makes the rotated key NaN.
//
// Contract: reads y, weight, positions, table, slots; writes rank + rope channels (and an FP8 row's
// scales, but no gap and no padding) of the rows named by slots (the whole cache is declared, the
// host does not know the rows). No scratch. record() may be called from several threads on
// different recorders. Determinism: the bits of a row depend on its token only. Error bound:
// tests/support/tolerance.h, rms_norm_bound and rope_bound; fp8_stored_bound on top for FP8 rows.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.1; MLA.forward in DeepSeek-V3's
// inference/model.py (kv_norm, k_pe).
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

// What happens to the normalised latent before it is stored.
enum class LatentRounding {
  kNone,      // an FP8 row: as kFp8
  kFp8,       // replaced by code * scale of fp8_quantize with FP32 scales, groups of 128 channels
  kFp8Ue8m0,  // the same with power-of-two scales
};

struct MlaCacheWriteShape {
  uint32_t tokens = 0, rank = 0, rope = 0;
  uint32_t y_stride = 0;    // elements, at least rank + rope
  uint32_t row_stride = 0;  // elements, at least rank + rope (FP8: bytes, hadal/cache_format.h)
  uint32_t cache_rows = 0;
  uint32_t max_position = 0;  // rows of the table
  bool interleaved = true;
  float eps = 1e-6f;
  CacheFormat cache_format = CacheFormat::kF32;
  LatentRounding rounding = LatentRounding::kNone;

  [[nodiscard]] static MlaCacheWriteShape packed(uint32_t tokens, uint32_t rank, uint32_t rope,
                                                 uint32_t cache_rows, uint32_t max_position,
                                                 CacheFormat format = CacheFormat::kF32);
};

struct MlaCacheWriteArgs {
  DeviceAddress y = 0, weight = 0, positions = 0, table = 0, slots = 0, cache = 0;
};

struct MlaCacheWriteConfig {
  uint32_t workgroup_size = 0;
  CacheFormat cache_format = CacheFormat::kF32;
  LatentRounding rounding = LatentRounding::kNone;
  bool use_fma = false;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status mla_cache_write_check(const MlaCacheWriteShape& shape, const Caps& caps);
// Pure; requires mla_cache_write_check to be ok.
[[nodiscard]] MlaCacheWriteConfig mla_cache_write_choose(const MlaCacheWriteShape& shape,
                                                         const Caps& caps);

class MlaCacheWrite {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MlaCacheWrite> create(Device& device,
                                                    const MlaCacheWriteConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a shape whose cache_format
  // is not the configuration's; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MlaCacheWriteShape& shape,
                              const MlaCacheWriteArgs& args) const;

 private:
  MlaCacheWrite(const Device& device, const vk::Pipeline* pipeline, MlaCacheWriteConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MlaCacheWriteConfig config_;
};

}  // namespace hadal
