// The two JSON texts of a checkpoint, read as a stream: a header may name a million tensors, and a
// document tree of it would cost ten times its bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/model/safetensors.h"
#include "hadal/status.h"

namespace hadal::model {

// The reference implementation's limit, and one for index files, which it does not read.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr uint64_t kMaxIndexBytes = 64u << 20;
// Bounds that no file of the family comes near (V3: 91,991 tensors in 163 shards), so that memory
// stays proportional to the text with a small factor.
inline constexpr size_t kMaxTensors = 1u << 21;
inline constexpr size_t kMaxShards = 10'000;
inline constexpr size_t kMaxDims = 8;

// One tensor as its header states it; nothing but the types is checked.
struct HeaderEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // data_offsets, relative to the first byte after the header
  uint64_t end = 0;
};

// In the order of the text. `name` (a path) starts every message. Errors: kMalformed.
[[nodiscard]] Result<std::vector<HeaderEntry>> parse_safetensors_header(std::string_view text,
                                                                        const std::string& name);

// weight_map of model.safetensors.index.json.
struct ShardIndex {
  struct Entry {
    std::string tensor;
    uint32_t file = 0;  // into files
  };
  std::vector<Entry> entries;      // sorted by tensor
  std::vector<std::string> files;  // plain names, each once, in order of appearance
};
[[nodiscard]] Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& name);

}  // namespace hadal::model
