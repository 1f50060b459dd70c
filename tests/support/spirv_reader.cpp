#include "support/spirv_reader.h"

#include <algorithm>
#include <map>

namespace hadal::test {
namespace {

// Opcodes, decorations and storage classes by their numbers in the specification.
constexpr uint32_t kMagic = 0x07230203u, kHeaderWords = 5;
constexpr uint32_t kOpTypeInt = 21, kOpTypeFloat = 22, kOpTypeStruct = 30, kOpTypePointer = 32;
constexpr uint32_t kOpSpecConstantComposite = 51, kOpVariable = 59;
constexpr uint32_t kOpDecorate = 71, kOpMemberDecorate = 72, kOpExecutionModeId = 331;
constexpr uint32_t kDecorationSpecId = 1, kDecorationBuiltIn = 11, kDecorationOffset = 35;
constexpr uint32_t kBuiltInWorkgroupSize = 25, kExecutionModeLocalSizeId = 38;
constexpr uint32_t kStoragePushConstant = 9;

struct Reader {
  std::map<uint32_t, ScalarKind> scalars;                     // by type id
  std::map<uint32_t, std::vector<uint32_t>> structs;          // member types
  std::map<uint32_t, uint32_t> pointees;                      // pointer type -> type
  std::map<uint32_t, uint32_t> spec_ids;                      // constant -> SpecId
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> offsets;  // (struct, member)
  std::map<uint32_t, uint32_t> first_constituent;             // of composite constants
  std::optional<uint32_t> workgroup_size;                     // the constant with that builtin
  std::optional<uint32_t> local_size_x;                       // by LocalSizeId
  std::optional<uint32_t> push_pointer;                       // type of the push-constant variable

  void read(uint32_t opcode, std::span<const uint32_t> w);
  void unfold(uint32_t type, uint32_t base, std::vector<PushMember>& members) const;
};

// `w` holds the operands.
void Reader::read(uint32_t opcode, std::span<const uint32_t> w) {
  const auto is = [&](uint32_t code, size_t operands) {
    return opcode == code && w.size() >= operands;
  };
  if (is(kOpTypeInt, 3)) {
    scalars[w[0]] = w[1] == 64   ? (w[2] ? ScalarKind::kOther : ScalarKind::kU64)
                    : w[1] == 32 ? (w[2] ? ScalarKind::kI32 : ScalarKind::kU32)
                                 : ScalarKind::kOther;
  } else if (is(kOpTypeFloat, 2)) {
    scalars[w[0]] = w[1] == 32 ? ScalarKind::kF32 : ScalarKind::kOther;
  } else if (is(kOpTypeStruct, 1)) {
    structs[w[0]].assign(w.begin() + 1, w.end());
  } else if (is(kOpTypePointer, 3)) {
    pointees[w[0]] = w[2];
  } else if (is(kOpVariable, 3) && w[2] == kStoragePushConstant) {
    push_pointer = w[0];
  } else if (is(kOpSpecConstantComposite, 3)) {
    first_constituent[w[1]] = w[2];
  } else if (is(kOpDecorate, 3) && w[1] == kDecorationSpecId) {
    spec_ids[w[0]] = w[2];
  } else if (is(kOpDecorate, 3) && w[1] == kDecorationBuiltIn && w[2] == kBuiltInWorkgroupSize) {
    workgroup_size = w[0];
  } else if (is(kOpMemberDecorate, 4) && w[2] == kDecorationOffset) {
    offsets[{w[0], w[1]}] = w[3];
  } else if (is(kOpExecutionModeId, 3) && w[1] == kExecutionModeLocalSizeId) {
    local_size_x = w[2];
  }
}

void Reader::unfold(uint32_t type, uint32_t base, std::vector<PushMember>& members) const {
  const auto found = structs.find(type);
  if (found == structs.end()) {
    const auto scalar = scalars.find(type);
    members.push_back({base, scalar == scalars.end() ? ScalarKind::kOther : scalar->second});
    return;
  }
  for (uint32_t i = 0; i < found->second.size(); ++i) {
    const auto offset = offsets.find({type, i});
    unfold(found->second[i], base + (offset == offsets.end() ? 0 : offset->second), members);
  }
}

}  // namespace

SpirvInterface read_spirv(std::span<const uint32_t> words) {
  SpirvInterface result;
  if (words.size() < kHeaderWords || words[0] != kMagic) {
    result.error = "no SPIR-V header";
    return result;
  }
  Reader reader;
  for (size_t i = kHeaderWords; i < words.size();) {
    const uint32_t length = words[i] >> 16;
    if (length == 0 || length > words.size() - i) {
      result.error = "an instruction runs over the end";
      return result;
    }
    reader.read(words[i] & 0xffffu, words.subspan(i + 1, length - 1));
    i += length;
  }
  for (const auto& [constant, id] : reader.spec_ids) result.spec_ids.push_back(id);
  std::sort(result.spec_ids.begin(), result.spec_ids.end());
  if (reader.workgroup_size) reader.local_size_x = reader.first_constituent[*reader.workgroup_size];
  if (reader.local_size_x && reader.spec_ids.count(*reader.local_size_x)) {
    result.local_size_x_spec_id = reader.spec_ids[*reader.local_size_x];
  }
  if (reader.push_pointer) reader.unfold(reader.pointees[*reader.push_pointer], 0, result.push);
  return result;
}

std::string to_string(std::span<const PushMember> members) {
  std::string text;
  for (const PushMember& m : members) {
    constexpr const char* kNames[] = {"u64", "u32", "i32", "f32", "other"};
    text += std::to_string(m.offset) + ":" + kNames[int(m.kind)] + " ";
  }
  return text;
}

}  // namespace hadal::test
