// The C++ library alone: what a shape would run as, without any device.
#include <hadal/fp8_gemm.h>
#include <hadal/version.h>

#include <cstdio>

int main() {
  const hadal::Fp8GemmShape shape = hadal::Fp8GemmShape::packed(4, 512, 7168);
  const hadal::Caps caps = hadal::minimum_caps();
  if (!hadal::fp8_gemm_check(shape, caps).ok()) return 1;
  std::printf("hadal %s: %s\n", HADAL_VERSION_STRING,
              hadal::fp8_gemm_choose(shape, caps).to_string().c_str());
  return 0;
}
