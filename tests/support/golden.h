// The outputs of implementations that are not hadal: tests/golden/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hadal::test {

struct Golden {
  std::string name;
  std::filesystem::path model_dir;  // of the checkpoint that it was computed with
  std::vector<uint32_t> ids;
  std::vector<uint32_t> greedy_hf;   // continuation of `ids`
  std::vector<uint32_t> greedy_fp8;  // empty when the checkpoint has none
  // Logits, row-major; empty when there are none.
  std::vector<float> hf;       // [ids, vocab] activations not quantised
  std::vector<float> fp8;      // [ids, vocab] FP8 activations simulated
  std::vector<float> mtp_fp8;  // [ids - 1, vocab]
};

// Throws std::runtime_error naming the file that cannot be read.
[[nodiscard]] Golden load_golden(const std::string& name);

// fables_heldout: text that the model was not trained on.
struct HeldOut {
  std::string text;
  uint32_t tokens = 0;
  uint32_t window = 0;
  double perplexity_unquantised = 0.0;
  double perplexity_fp8 = 0.0;
  double mtp_greedy_acceptance = 0.0;
};
[[nodiscard]] HeldOut load_held_out();

[[nodiscard]] std::filesystem::path golden_dir();
[[nodiscard]] std::filesystem::path fables_dir();

}  // namespace hadal::test
