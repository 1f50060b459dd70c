// The table that scalar paths decode e4m3 codes with, in device memory: 256 floats, code -> value
// times 2^-8 (as lib/fp8.glsl decodes), and 256 of the values themselves; 0 for the two NaN codes.
#pragma once

#include "hadal/buffer.h"
#include "hadal/status.h"

namespace hadal {
class Device;
}

namespace hadal::vk {

// Its address: the host's (BorrowedDevice::constants), else at the first call made (2 KiB) and kept
// as long as the device. For create(), never for record(). Thread-safe.
[[nodiscard]] Result<DeviceAddress> e4m3_table(Device& device);
inline constexpr uint64_t kE4m3ValuesOffset = 1024;  // bytes to the values themselves

}  // namespace hadal::vk
