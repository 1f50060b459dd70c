// What a SPIR-V compute module says about its interface: push constants, specialisation constants,
// workgroup size. Enough of a reader for hadal's own modules (SPIR-V specification, chapter 2.3 and
// 3).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hadal::test {

enum class ScalarKind { kU64, kU32, kI32, kF32, kOther };

struct PushMember {
  uint32_t offset = 0;
  ScalarKind kind = ScalarKind::kOther;
  bool operator==(const PushMember&) const = default;
};

struct SpirvInterface {
  std::string error;               // why the words are not a module that can be read; else empty
  std::vector<PushMember> push;    // scalars in order, structs inside the block unfolded
  std::vector<uint32_t> spec_ids;  // ascending
  std::optional<uint32_t> local_size_x_spec_id;
};

[[nodiscard]] SpirvInterface read_spirv(std::span<const uint32_t> words);

// For failure messages: "offset:kind" of each member.
[[nodiscard]] std::string to_string(std::span<const PushMember> members);

}  // namespace hadal::test
