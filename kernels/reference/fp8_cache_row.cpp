#include "hadal/reference/fp8_cache_row.h"

#include <cstring>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_quantize.h"

namespace hadal::reference {
namespace {

size_t scales_at(size_t rank) {
  return (rank + 3) / 4 * 4;
}
size_t key_at(size_t rank) {
  return scales_at(rank) + 4 * ((rank + 127) / 128);
}

}  // namespace

Fp8CacheRow Fp8CacheRow::read(const uint8_t* row, uint32_t rank, uint32_t rope) {
  Fp8CacheRow r{std::vector<uint8_t>(row, row + rank), std::vector<float>((rank + 127) / 128),
                std::vector<uint16_t>(rope)};
  if (rank) std::memcpy(r.scales.data(), row + scales_at(rank), r.scales.size() * 4);
  if (rope) std::memcpy(r.key.data(), row + key_at(rank), rope * size_t{2});
  return r;
}

Fp8CacheRow Fp8CacheRow::quantize(const float* values, uint32_t rank, uint32_t rope,
                                  ScaleFormat format) {
  QuantizedRows latent = fp8_quantize(1, rank, values, rank, format);
  Fp8CacheRow r{std::move(latent.codes), std::move(latent.scales), {}};
  for (uint32_t c = 0; c < rope; ++c) r.key.push_back(bf16_encode(values[rank + c]));
  return r;
}

void Fp8CacheRow::write(uint8_t* row) const {
  const size_t rank = codes.size();
  if (rank) std::memcpy(row, codes.data(), rank);
  if (rank) std::memcpy(row + scales_at(rank), scales.data(), scales.size() * 4);
  if (!key.empty()) std::memcpy(row + key_at(rank), key.data(), key.size() * 2);
}

std::vector<double> Fp8CacheRow::values() const {
  std::vector<double> result;
  for (size_t c = 0; c < codes.size(); ++c) {
    result.push_back(double(e4m3_decode(codes[c])) * double(scales[c / 128]));
  }
  for (uint16_t code : key) result.push_back(double(bf16_decode(code)));
  return result;
}

uint32_t fp8_cache_row_bytes(uint32_t rank, uint32_t rope) {
  return uint32_t((key_at(rank) + 2 * size_t(rope) + 15) / 16 * 16);
}

}  // namespace hadal::reference
