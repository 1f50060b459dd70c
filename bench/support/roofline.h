// The limits of this device, measured on the spot.
#pragma once

#include "hadal/device.h"

namespace hadal::bench {

struct Roofline {
  double copy_bytes_per_s = 0;  // a buffer copy, read and write counted
  double read_bytes_per_s = 0;  // GPU: a shader that only reads. CPU driver: plain vector loads by
                                // the host, on as many threads; no shader reaches them there
  double fma_flop_per_s = 0;    // a shader of independent chains of multiply-adds
  [[nodiscard]] double bytes_per_s() const {
    return copy_bytes_per_s > read_bytes_per_s ? copy_bytes_per_s : read_bytes_per_s;
  }
};

// Threads that run the device's shaders: LP_NUM_THREADS or the processors this process may use on a
// CPU driver (0, inline, is one), 0 on a GPU.
[[nodiscard]] uint32_t device_threads(const Caps& caps);

// About half a second; `quick` takes smaller buffers, good for a smoke run only.
[[nodiscard]] Roofline measure_roofline(Device& device, bool quick);

}  // namespace hadal::bench
