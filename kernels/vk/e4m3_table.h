// The table that scalar paths decode e4m3 codes of a with: 256 floats in device memory, code ->
// value times 2^-8 (as lib/fp8.glsl decodes), 0 for the two NaN codes.
#pragma once

#include "hadal/buffer.h"
#include "hadal/status.h"

namespace hadal {
class Device;
}

namespace hadal::vk {

// Its address, at the first call made (1 KiB) and kept as long as the device. For create(), never
// for record(). Thread-safe.
[[nodiscard]] Result<DeviceAddress> e4m3_table(Device& device);

}  // namespace hadal::vk
