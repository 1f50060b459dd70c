// Drivers that do not do what their limits and features say, and the few choices per driver that no
// limit expresses. Nothing outside this file looks at a driver's identity.
#pragma once

#include "dispatch_table.h"
#include "hadal/caps.h"

namespace hadal::vk {

// Sets the fields of `caps` that depend on the driver rather than on what it reports.
inline void apply_quirks(VkDriverId driver, Caps& caps) {
  // Mesa's CPU driver lowers fma() to a multiply and an add with an extra register move; 22.3 runs
  // a GEMM 1.5 times slower with it. Everywhere else fma() is one instruction.
  caps.use_fma = driver != VK_DRIVER_ID_MESA_LLVMPIPE;
  // Measured: 26.1 folds uniform loads into the arithmetic; 22.3 and 25.0 (whose version numbers
  // are smaller, or 1) keep them as vectors, in branches.
  caps.scalar_uniforms = driver == VK_DRIVER_ID_MESA_LLVMPIPE &&
                         caps.driver_version >= VK_MAKE_API_VERSION(0, 26, 0, 0);
  // lavapipe crashes in any cooperative-matrix shader at 512-bit vectors (subgroups of 16).
  if (driver == VK_DRIVER_ID_MESA_LLVMPIPE && caps.subgroup_size > 8) {
    caps.cooperative_matrix = false;
    caps.float8_cooperative_matrix = caps.cooperative_matrix2 = false;
    caps.coop_matrix_shapes.clear();
  }
}

}  // namespace hadal::vk
