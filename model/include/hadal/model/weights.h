// The weights of a checkpoint on the device: FP8 stays FP8, norms become float, everything else is
// copied as it is; rows lie at strides that kernels like (multiples of 16 bytes), tensors at 256
// bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/model/config.h"
#include "hadal/model/safetensors.h"
#include "hadal/status.h"

namespace hadal::model {

// y = x W^T. W is [n, k], e4m3 with float scales of 128x128 blocks, or bfloat16 (scale == 0).
struct LinearWeight {
  uint32_t n = 0, k = 0;
  DeviceAddress b = 0;
  uint32_t b_stride = 0;  // elements of W's type
  DeviceAddress b_scale = 0;
  uint32_t b_scale_stride = 0;
  [[nodiscard]] bool is_fp8() const { return b_scale != 0; }
};

// down( silu(gate x) * up x )
struct MlpWeights {
  LinearWeight gate, up, down;
};

// One projection of all routed experts: equal shapes, addressed through a device table of
// ExpertWeight (hadal/grouped_gemm.h) [experts].
struct ExpertWeights {
  uint32_t n = 0, k = 0, b_stride = 0, b_scale_stride = 0;
  bool is_fp8 = false;
  DeviceAddress table = 0;
};

struct MoeWeights {
  LinearWeight router;     // bfloat16 [experts, hidden]
  DeviceAddress bias = 0;  // float [experts], 0 when the method has none
  ExpertWeights gate, up, down;
  std::optional<MlpWeights> shared;
};

struct AttentionWeights {
  std::optional<LinearWeight> q_a;  // absent: q_b is the direct projection from hidden
  DeviceAddress q_a_norm = 0;       // float [q_lora_rank]
  LinearWeight q_b;                 // [heads * (nope + rope), q_lora_rank or hidden]
  LinearWeight kv_a;                // [kv_lora_rank + rope, hidden]
  DeviceAddress kv_a_norm = 0;      // float [kv_lora_rank]
  LinearWeight kv_b;                // [heads * (nope + v), kv_lora_rank], per head [W_UK | W_UV]
  LinearWeight absorb;              // what the absorbed projections read: kv_b, or its bf16 copy
  LinearWeight o;                   // [hidden, heads * v]
};

struct LayerWeights {
  DeviceAddress input_norm = 0, post_attention_norm = 0;  // float [hidden]
  AttentionWeights attention;
  std::optional<MlpWeights> dense;  // exactly one of dense and moe
  std::optional<MoeWeights> moe;
};

// Layer num_hidden_layers of the checkpoint: predicts one token further (facts of MTP: mtp.h).
struct MtpWeights {
  DeviceAddress embedding_norm = 0, hidden_norm = 0, head_norm = 0;  // float [hidden]
  LinearWeight eh_proj;                                              // bfloat16 [hidden, 2 hidden]
  LayerWeights layer;
  DeviceAddress embedding = 0;  // the main model's when the checkpoint's copy is equal
  LinearWeight head;
};

// A checkpoint file that the device reads where it is mapped.
struct ImportedFile {
  Buffer buffer;
  std::shared_ptr<const void> owner;
};

struct LoadOptions {
  // Keep a bfloat16 copy of kv_b_proj for the absorbed projections instead of reading its FP8 bytes
  // (kernels/mla_absorb.md has the measured distance).
  bool absorb_bf16 = false;
  bool load_mtp = true;
  // Let the device read tensors in the mapped file where it can and they happen to lie right
  // (256-byte aligned, rows a multiple of 16 bytes). Not on discrete GPUs, which would read them
  // over the bus. The file must then stay as it is while the weights live.
  bool zero_copy = true;
  // Bytes that a thread of the load's own reads ahead of the copy, so that the disk does not wait
  // for the device nor the device for the disk; as much more stays resident. 0: no thread. It has
  // ended when load() returns.
  uint64_t read_ahead_bytes = 0;
  // Called with (bytes done, bytes in all) from the loading thread, at least every 16 MiB; false
  // cancels (kCancelled): nothing stays allocated.
  std::function<bool(uint64_t, uint64_t)> progress;
};

class Weights {
 public:
  // Checks the config (check_supported of model.h) and every tensor (present, type, shape, no NaN
  // codes, scales where FP8 needs them), plans the placement, compares it with the device's free
  // memory, then allocates and copies, dropping the file's pages behind itself. Errors: kMalformed
  // naming file, tensor and rule; kOutOfDeviceMemory with the numbers, before anything is
  // allocated; kUnsupported for a size that no kernel runs.
  [[nodiscard]] static Result<Weights> load(Device& device, const Checkpoint& checkpoint,
                                            const ModelConfig& config,
                                            const LoadOptions& options = {});

  DeviceAddress embedding = 0;  // bfloat16 [vocab, hidden]
  uint32_t embedding_stride = 0;
  DeviceAddress final_norm = 0;  // float [hidden]
  LinearWeight head;             // bfloat16 [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::vector<MtpWeights> mtp;  // num_nextn_predict_layers, or empty when not loaded
  uint64_t fingerprint = 0;     // of the checkpoint (fingerprint.h)

  [[nodiscard]] uint64_t device_bytes() const { return device_bytes_; }
  // Files read in place; 0 when everything was copied.
  [[nodiscard]] size_t imported_files() const { return imports_.size(); }

 private:
  std::vector<ImportedFile> imports_;
  std::vector<Buffer> blocks_;
  uint64_t device_bytes_ = 0;
};

// Bytes that Weights::load would allocate, without a device. Same errors.
[[nodiscard]] Result<uint64_t> weights_device_bytes(const Checkpoint& checkpoint,
                                                    const ModelConfig& config,
                                                    const LoadOptions& options = {});
// The same by config.json alone, before there is a checkpoint: of one as they are published, every
// linear in the config's weight format, the MTP module with the main model's embedding and head.
[[nodiscard]] uint64_t weights_device_bytes(const ModelConfig& config,
                                            const LoadOptions& options = {});

}  // namespace hadal::model
