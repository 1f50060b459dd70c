// The members of a plain struct of scalars, found by the compiler: how C++ lays out a layout
// header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/spirv_reader.h"

namespace hadal::test {

// Stands in for any member in T{...}, with a value that marks the member's place in memory.
struct MemberProbe {
  std::vector<PushMember>* found = nullptr;
  template <class Member>
  operator Member() const {  // NOLINT: implicit by design
    static_assert(std::is_arithmetic_v<Member>, "layout structs hold scalars only");
    PushMember member;
    member.kind = std::is_same_v<Member, uint64_t>   ? ScalarKind::kU64
                  : std::is_same_v<Member, uint32_t> ? ScalarKind::kU32
                  : std::is_same_v<Member, int32_t>  ? ScalarKind::kI32
                  : std::is_same_v<Member, float>    ? ScalarKind::kF32
                                                     : ScalarKind::kOther;
    found->push_back(member);
    return Member(found->size());
  }
};

template <class T, class... Probes>
constexpr size_t member_count() {
  if constexpr (requires { T{std::declval<Probes>()..., std::declval<MemberProbe>()}; }) {
    return member_count<T, Probes..., MemberProbe>();
  } else {
    return sizeof...(Probes);
  }
}

// Types in order, and offsets as they are in memory: each member was set to its number, 1, 2, ...
template <class T>
std::vector<PushMember> struct_members() {
  std::vector<PushMember> members;
  const T object = [&]<size_t... I>(std::index_sequence<I...>) {
    return T{((void)I, MemberProbe{&members})...};
  }
  (std::make_index_sequence<member_count<T>()>());
  const auto* bytes = reinterpret_cast<const std::byte*>(&object);
  size_t at = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    const auto holds_number = [&](auto type) {
      using Member = decltype(type);
      const Member number = Member(i + 1);
      while (at + sizeof(Member) <= sizeof(T) && std::memcmp(bytes + at, &number, sizeof(Member))) {
        at += 4;
      }
      members[i].offset = uint32_t(at);
      at += sizeof(Member);
    };
    if (members[i].kind == ScalarKind::kU64) holds_number(uint64_t{});
    if (members[i].kind == ScalarKind::kU32) holds_number(uint32_t{});
    if (members[i].kind == ScalarKind::kI32) holds_number(int32_t{});
    if (members[i].kind == ScalarKind::kF32) holds_number(float{});
  }
  return members;
}

}  // namespace hadal::test
