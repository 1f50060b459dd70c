#include "e4m3_table.h"

#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "device_impl.h"
#include "hadal/device.h"

namespace hadal {
namespace vk {
namespace {

float decode_times_2_m8(uint32_t code) {
  const uint32_t exponent = (code >> 3) & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return 0.0f;
  const float magnitude = exponent == 0 ? std::ldexp(float(mantissa), -9 - 8)
                                        : std::ldexp(float(8 + mantissa), int(exponent) - 10 - 8);
  return code & 0x80 ? -magnitude : magnitude;
}

}  // namespace
}  // namespace vk

void write_device_constants(std::span<std::byte, kDeviceConstantsBytes> bytes) {
  std::array<float, 512> values;
  static_assert(sizeof(values) == kDeviceConstantsBytes);
  for (uint32_t code = 0; code < 256; ++code) {
    values[code] = vk::decode_times_2_m8(code);
    values[256 + code] = values[code] * 256.0f;
  }
  std::memcpy(bytes.data(), values.data(), sizeof(values));
}

namespace vk {

Result<DeviceAddress> e4m3_table(Device& device) {
  DeviceImpl& impl = device.impl();
  if (impl.constants) return impl.constants;
  const std::lock_guard lock(impl.e4m3_table_mutex);
  if (!impl.e4m3_table) {
    std::array<std::byte, kDeviceConstantsBytes> bytes;
    write_device_constants(bytes);
    HADAL_ASSIGN(Buffer buffer, device.allocate(sizeof(bytes)));
    HADAL_TRY(device.upload(buffer, 0, bytes));
    impl.e4m3_table = std::move(buffer);
  }
  return impl.e4m3_table.address();
}

}  // namespace vk
}  // namespace hadal
