// embedding: y[t,:] = table[ids[t],:], the input of the first layer.
//
//   ids    uint32 [tokens]
//   table  bfloat16 [vocab, hidden], row stride table_stride
//   y      float [tokens, hidden], row stride y_stride
//
// Requirements: table a multiple of 2, ids and y multiples of 4; any tokens, hidden, vocab >= 0. An
// id that is not below vocab gives a row of NaN (hosts validate their ids; a device's own sampler
// cannot).
//
// Contract: reads ids and table, writes y[:, :hidden] and nothing between hidden and y_stride. No
// scratch. record() may be called from several threads on different recorders. Exact.
//
// Source: DeepSeek-V3's inference/model.py, ParallelEmbedding.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct EmbeddingShape {
  uint32_t tokens = 0, hidden = 0, vocab = 0;
  uint32_t table_stride = 0;  // elements, at least hidden
  uint32_t y_stride = 0;      // elements, at least hidden

  // Tightest legal strides for the sizes.
  [[nodiscard]] static EmbeddingShape packed(uint32_t tokens, uint32_t hidden, uint32_t vocab);
};

struct EmbeddingArgs {
  DeviceAddress ids = 0, table = 0, y = 0;
};

struct EmbeddingConfig {
  uint32_t workgroup_size = 0;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status embedding_check(const EmbeddingShape& shape, const Caps& caps);
// Pure; the same for every shape, so that one pipeline serves all.
[[nodiscard]] EmbeddingConfig embedding_choose(const EmbeddingShape& shape, const Caps& caps);

class Embedding {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<Embedding> create(Device& device, const EmbeddingConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address;
  // kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const EmbeddingShape& shape,
                              const EmbeddingArgs& args) const;

 private:
  Embedding(const Device& device, const vk::Pipeline* pipeline, EmbeddingConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  EmbeddingConfig config_;
};

}  // namespace hadal
