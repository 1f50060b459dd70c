#include "ops.h"

#include "hadal/bf16_gemm.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_quantize.h"
#include "hadal/rms_norm.h"
#include "hadal/swiglu.h"

namespace hadal::model {

Ops::Ops(Device& device, const ModelConfig& config)
    : device_(&device),
      scale_format_(config.weight_format == WeightFormat::kFp8BlockUe8m0 ? ScaleFormat::kUe8m0
                                                                         : ScaleFormat::kFp32) {}

Status Ops::linear(Recorder& recorder, const LinearWeight& w, const Activation& act, uint32_t m,
                   const Rows& d, bool accumulate) const {
  if (w.is_fp8()) {
    Fp8GemmShape shape;
    shape.m = m, shape.n = w.n, shape.k = w.k;
    shape.a_stride = act.q.stride, shape.a_scale_stride = act.scale.stride;
    shape.b_stride = w.b_stride, shape.b_scale_stride = w.b_scale_stride;
    shape.d_stride = d.stride;
    shape.accumulate = accumulate;
    return record<Fp8Gemm>(
        recorder, [](const auto& s, const Caps& caps) { return fp8_gemm_choose(s, caps); }, shape,
        Fp8GemmArgs{act.q.address, act.scale.address, w.b, w.b_scale, d.address});
  }
  Bf16GemmShape shape;
  shape.m = m, shape.n = w.n, shape.k = w.k;
  shape.a_stride = act.f32.stride, shape.b_stride = w.b_stride, shape.d_stride = d.stride;
  shape.accumulate = accumulate;
  return record<Bf16Gemm>(recorder, bf16_gemm_choose, shape,
                          Bf16GemmArgs{act.f32.address, w.b, d.address});
}

Status Ops::norm(Recorder& recorder, const Rows& x, DeviceAddress weight, double eps, uint32_t rows,
                 uint32_t n, const Activation& out, Forms forms) const {
  RmsNormShape shape;
  shape.rows = rows, shape.n = n;
  shape.x_stride = x.stride;
  shape.write_y = forms.f32, shape.quantize = forms.fp8;
  shape.y_stride = out.f32.stride;
  shape.q_stride = out.q.stride, shape.scale_stride = out.scale.stride;
  shape.scale_format = scale_format_;
  shape.eps = float(eps);
  RmsNormArgs args;
  args.x = x.address, args.weight = weight;
  args.y = out.f32.address, args.q = out.q.address, args.scale = out.scale.address;
  return record<RmsNorm>(recorder, rms_norm_choose, shape, args);
}

Status Ops::swiglu(Recorder& recorder, const Rows& gate, const Rows& up, uint32_t rows, uint32_t n,
                   const Activation& out, Forms forms) const {
  SwigluShape shape;
  shape.rows = rows, shape.n = n;
  shape.gate_stride = gate.stride, shape.up_stride = up.stride;
  shape.write_y = forms.f32, shape.quantize = forms.fp8;
  shape.y_stride = out.f32.stride;
  shape.q_stride = out.q.stride, shape.scale_stride = out.scale.stride;
  shape.scale_format = scale_format_;
  SwigluArgs args;
  args.gate = gate.address, args.up = up.address;
  args.y = out.f32.address, args.q = out.q.address, args.scale = out.scale.address;
  return record<Swiglu>(recorder, swiglu_choose, shape, args);
}

Status Ops::quantize(Recorder& recorder, const Activation& act, uint32_t rows, uint32_t k) const {
  Fp8QuantizeShape shape;
  shape.rows = rows, shape.k = k;
  shape.x_stride = act.f32.stride;
  shape.q_stride = act.q.stride, shape.scale_stride = act.scale.stride;
  shape.scale_format = scale_format_;
  return record<Fp8Quantize>(recorder, fp8_quantize_choose, shape,
                             Fp8QuantizeArgs{act.f32.address, act.q.address, act.scale.address});
}

}  // namespace hadal::model
