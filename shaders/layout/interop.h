// What lets one header describe a kernel's interface to both languages. Layout headers hold only uint,
// int and float members and, first, uint64_t addresses; no vec3, no bool, no 8/16-bit members, so that
// C++ and scalar block layout place every member alike (tests/layout_test reads the SPIR-V to prove it).
#ifndef HADAL_LAYOUT_INTEROP_H_
#define HADAL_LAYOUT_INTEROP_H_

#ifdef __cplusplus
#include <cstdint>
#define HADAL_LAYOUT_BEGIN namespace hadal::layout { using uint = uint32_t;
#define HADAL_LAYOUT_END }
#define HADAL_CONST(name, value) inline constexpr uint32_t name = value
#define HADAL_FUNCTION constexpr
#define HADAL_CHECK_SIZE(type, size) \
  static_assert(sizeof(type) == (size) && (size) <= 128, "push constants: at most 128 bytes")
#else
#define HADAL_LAYOUT_BEGIN
#define HADAL_LAYOUT_END
#define HADAL_CONST(name, value) const uint name = value
#define HADAL_FUNCTION
#define HADAL_CHECK_SIZE(type, size)
#endif

HADAL_LAYOUT_BEGIN

// Specialisation constant ids below 10 are the same in every kernel.
HADAL_CONST(kSpecWorkgroupSize, 0);  // local_size_x
HADAL_CONST(kSpecUseFma, 1);         // 1: MAC() is fma(); 0: a multiply and an add, not contracted

// e4m3 scale blocks: 128 channels, 128x128 weights.
HADAL_CONST(kFp8Block, 128);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_INTEROP_H_
