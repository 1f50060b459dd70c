// Tells checkpoints apart: a 64-bit checksum of what a model is, and the checksum itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "hadal/model/config.h"
#include "hadal/model/safetensors.h"

namespace hadal::model {

// XXH64 with seed 0: quick, and no protection against somebody who wants two contents to agree.
// Pure. Source: the xxHash fast digest algorithm specification, 0.1.1.
[[nodiscard]] uint64_t xxh64(std::span<const std::byte> bytes);

// xxh64 over the config's fields and, by name, every tensor's type, shape, first and last 64 bytes.
// Resharding a checkpoint keeps it; any training changes it, though a forger could keep it, too.
// Reads two file pages of each tensor.
[[nodiscard]] uint64_t checkpoint_fingerprint(const Checkpoint& checkpoint,
                                              const ModelConfig& config);

}  // namespace hadal::model
