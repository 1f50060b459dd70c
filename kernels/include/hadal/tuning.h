// Measured choices: which path and tile was fastest for a shape on one device, driver and version
// of hadal. hadal-tune makes the file; choose() uses the table when GemmPolicy::tuning names it.
//
// The file is text, one fact a line, and names exactly what it was measured on:
//   hadal-tuning 1
//   hadal 0.1.0
//   device NVIDIA H200
//   driver 9151440 3c1d5f... (version, pipeline cache UUID)
//   fp8_gemm 64 4096 7168 coopmat 64 128
//   end 1
// A choice is kernel, m, n, k, path, tile_m, tile_n; for fp8_grouped_gemm m is the rows expected of
// an expert. The last line counts the choices, so that a cut file is noticed.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/status.h"

namespace hadal {

enum class TunedKernel { kFp8Gemm, kFp8GroupedGemm };

struct TunedChoice {
  GemmPath path = GemmPath::kPortable;
  uint32_t tile_m = 0, tile_n = 0;  // the configuration's
  auto operator<=>(const TunedChoice&) const = default;
};

class TuningTable {
 public:
  // An empty table for this device, driver and version.
  explicit TuningTable(const Caps& caps);
  // Errors: kMalformed naming the line; kUnsupported for a file of another device, driver or
  // version ("stale").
  [[nodiscard]] static Result<TuningTable> parse(std::string_view text, const Caps& caps);
  [[nodiscard]] std::string to_text() const;

  void set(TunedKernel kernel, uint32_t m, uint32_t n, uint32_t k, const TunedChoice& choice);
  // The choice of the smallest tuned m that is at least `m` for this n and k, else of the largest;
  // null without any. Allocates nothing.
  [[nodiscard]] const TunedChoice* find(TunedKernel kernel, uint32_t m, uint32_t n,
                                        uint32_t k) const;
  [[nodiscard]] size_t size() const { return choices_.size(); }

 private:
  struct Key {
    TunedKernel kernel{};
    uint32_t n = 0, k = 0, m = 0;
    auto operator<=>(const Key&) const = default;
  };
  std::string device_, driver_;
  std::map<Key, TunedChoice> choices_;
};

// Index of the candidate to keep, given each one's median time; the first is the default, and keeps
// its place unless another is more than 3 % faster. NaN or 0: not measured.
[[nodiscard]] size_t pick_fastest(std::span<const double> median_ns);

}  // namespace hadal
