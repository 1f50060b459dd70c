// What the targets of both C ABIs share: structures of any size and version, and what a refusal
// must have.
#pragma once

#include <hadal/hadal.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>

#include "fuzz/bytes.h"

namespace hadal::fuzz {

// A structure of the ABI, zeroed but for its size.
template <class T>
T sized() {
  T value;
  std::memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}

// A structure in memory of exactly the bytes that it says to have: now and then one of an older or
// a newer version of the ABI.
template <class T>
std::unique_ptr<unsigned char[]> with_other_size(const T& value, ByteSource& random) {
  const size_t bytes = sizeof(size_t) + random() % (sizeof(T) + 32);
  auto copy = std::make_unique<unsigned char[]>(bytes);
  std::memset(copy.get(), random() % 4 ? 0 : 1, bytes);
  std::memcpy(copy.get(), &value, std::min(bytes, sizeof(T)));
  std::memcpy(copy.get(), &bytes, sizeof(bytes));
  return copy;
}

// What a refusal must have. Sizes can be wrong, or unsupported; `also` lists what else this call
// may find.
inline std::string fault_of(hadal_status status, const hadal_error& error,
                            std::initializer_list<hadal_status> also = {}) {
  if (status == HADAL_OK) return error.message[0] ? "an error from a call that succeeded" : "";
  if (error.status != status) return "the error's status is not the call's";
  if (error.message[0] == 0) return "a refusal without a message";
  if (status == HADAL_ERROR_INVALID_ARGUMENT || status == HADAL_ERROR_UNSUPPORTED) return "";
  return std::find(also.begin(), also.end(), status) == also.end() ? error.message : "";
}

}  // namespace hadal::fuzz
