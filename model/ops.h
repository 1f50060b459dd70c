// Kernels as a layer calls them: choose, create and record in one call, FP8 or bfloat16 by the
// weight. Private.
#pragma once

#include <cstdint>

#include "hadal/device.h"
#include "hadal/model/config.h"
#include "hadal/model/weights.h"
#include "hadal/recorder.h"
#include "hadal/status.h"
#include "workspace.h"

namespace hadal::model {

// Which forms of an activation its readers need.
struct Forms {
  bool f32 = false, fp8 = false;
  [[nodiscard]] static Forms of(bool is_fp8) { return {!is_fp8, is_fp8}; }
  [[nodiscard]] Forms operator|(Forms other) const { return {f32 || other.f32, fp8 || other.fp8}; }
};

class Ops {
 public:
  Ops(Device& device, const ModelConfig& config);
  [[nodiscard]] Device& device() const { return *device_; }
  [[nodiscard]] ScaleFormat scale_format() const { return scale_format_; }

  // Chooses a configuration, finds the pipeline, records one kernel. None of it waits or allocates
  // device memory; a pipeline is compiled at the first use of its configuration.
  template <class Kernel, class Shape, class Choose, class Args>
  [[nodiscard]] Status record(Recorder& recorder, Choose choose, const Shape& shape,
                              const Args& args) const {
    HADAL_ASSIGN(const Kernel kernel, Kernel::create(*device_, choose(shape, device_->caps())));
    return kernel.record(recorder, shape, args);
  }

  // d[m, n] (+)= act[m, k] W^T
  [[nodiscard]] Status linear(Recorder& recorder, const LinearWeight& w, const Activation& act,
                              uint32_t m, const Rows& d, bool accumulate = false) const;
  // out = RMSNorm(x) * weight over n channels, in the forms asked for.
  [[nodiscard]] Status norm(Recorder& recorder, const Rows& x, DeviceAddress weight, double eps,
                            uint32_t rows, uint32_t n, const Activation& out, Forms forms) const;
  // out = silu(gate) * up, in the forms asked for.
  [[nodiscard]] Status swiglu(Recorder& recorder, const Rows& gate, const Rows& up, uint32_t rows,
                              uint32_t n, const Activation& out, Forms forms) const;
  // act.q, act.scale = quantised act.f32
  [[nodiscard]] Status quantize(Recorder& recorder, const Activation& act, uint32_t rows,
                                uint32_t k) const;

 private:
  Device* device_;
  ScaleFormat scale_format_;
};

}  // namespace hadal::model
