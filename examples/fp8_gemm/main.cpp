// The smallest program that runs a hadal kernel: D = A B^T in FP8 on the best Vulkan device.
#include <cstdio>
#include <cstring>
#include <vector>

#include "hadal/device.h"
#include "hadal/fp8_gemm.h"
#include "hadal/recorder.h"

namespace {

hadal::Status run() {
  HADAL_ASSIGN(auto device, hadal::Device::create());

  // 3 x 256 activations times a 5 x 256 weight: every code 0x38 is 1.0, every scale 0.5.
  const auto shape = hadal::Fp8GemmShape::packed(3, 5, 256);
  const std::vector<uint8_t> ones(size_t{shape.n} * shape.b_stride, 0x38);
  const std::vector<float> halves(6, 0.5f);
  HADAL_ASSIGN(const hadal::Buffer a, device->allocate(ones.size()));
  HADAL_ASSIGN(const hadal::Buffer b, device->allocate(ones.size()));
  HADAL_ASSIGN(const hadal::Buffer scale, device->allocate(halves.size() * 4));
  HADAL_ASSIGN(const hadal::Buffer d, device->allocate(size_t{shape.m} * shape.d_stride * 4));
  HADAL_TRY(device->upload(a, 0, std::as_bytes(std::span(ones))));
  HADAL_TRY(device->upload(b, 0, std::as_bytes(std::span(ones))));
  HADAL_TRY(device->upload(scale, 0, std::as_bytes(std::span(halves))));

  // check -> choose -> create -> record; only Device::run submits.
  HADAL_TRY(hadal::fp8_gemm_check(shape, device->caps()));
  const hadal::Fp8GemmConfig config = hadal::fp8_gemm_choose(shape, device->caps());
  std::printf("%s\n%s\n", device->caps().device_name.c_str(), config.to_string().c_str());
  HADAL_ASSIGN(const hadal::Fp8Gemm gemm, hadal::Fp8Gemm::create(*device, config));
  HADAL_ASSIGN(hadal::Recorder recorder, hadal::Recorder::create(*device));
  HADAL_TRY(gemm.record(recorder, shape,
                        {.a = a.address(),
                         .a_scale = scale.address(),
                         .b = b.address(),
                         .b_scale = scale.address(),
                         .d = d.address()}));
  HADAL_TRY(recorder.end());
  HADAL_TRY(device->run(recorder));

  std::vector<float> result(size_t{shape.m} * shape.d_stride);
  HADAL_TRY(device->download(d, 0, std::as_writable_bytes(std::span(result))));
  std::printf("d[0][0] = %g (256 * 1 * 1 * 0.5 * 0.5 = 64)\n", double(result[0]));
  return {};
}

}  // namespace

int main() {
  const hadal::Status status = run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 2;
}
