// Seeded test data. std::mt19937's sequence is fixed by the standard; distributions are not, so the
// few that are needed are written out here.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace hadal::test {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  [[nodiscard]] uint32_t bits() { return uint32_t(engine_()); }
  // Uniform in [0, bound).
  [[nodiscard]] uint32_t below(uint32_t bound) { return uint32_t(uint64_t{bits()} * bound >> 32); }
  // Uniform in [low, high).
  [[nodiscard]] float uniform(float low, float high) {
    return low + (high - low) * (float(bits() >> 8) * 0x1p-24f);
  }
  // Standard normal (Box-Muller).
  [[nodiscard]] float normal() {
    const float u = (float(bits() >> 8) + 1.0f) * 0x1p-24f;
    return std::sqrt(-2.0f * std::log(u)) * std::cos(6.2831853f * uniform(0, 1));
  }
  [[nodiscard]] std::vector<float> normals(size_t count, float scale = 1.0f) {
    std::vector<float> values(count);
    for (float& v : values) v = scale * normal();
    return values;
  }
  [[nodiscard]] std::vector<float> uniforms(size_t count, float low, float high) {
    std::vector<float> values(count);
    for (float& v : values) v = uniform(low, high);
    return values;
  }
  // Every e4m3 code but NaN, subnormals and both zeros included.
  [[nodiscard]] std::vector<uint8_t> e4m3_codes(size_t count) {
    std::vector<uint8_t> codes(count);
    for (uint8_t& c : codes) {
      c = uint8_t(bits());
      if ((c & 0x7f) == 0x7f) c = uint8_t(c ^ 1);
    }
    return codes;
  }

 private:
  std::mt19937 engine_;
};

}  // namespace hadal::test
