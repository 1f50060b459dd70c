#include "support/golden.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

namespace hadal::test {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Little-endian floats, as the machines that run the tests have them.
std::vector<float> read_floats(const fs::path& path) {
  if (!fs::exists(path)) return {};
  const std::string bytes = read_text(path);
  if (bytes.size() % sizeof(float) != 0) {
    throw std::runtime_error("not a whole number of floats: " + path.string());
  }
  std::vector<float> values(bytes.size() / sizeof(float));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

}  // namespace

fs::path golden_dir() {
  return fs::path(HADAL_SOURCE_DIR) / "tests/golden";
}

fs::path fables_dir() {
  return fs::path(HADAL_SOURCE_DIR) / "examples/models/fables";
}

Golden load_golden(const std::string& name) {
  const auto json = nlohmann::json::parse(read_text(golden_dir() / (name + ".json")));
  const std::string checkpoint = json.at("checkpoint");
  Golden golden;
  golden.name = name;
  golden.model_dir = checkpoint == "fables" ? fables_dir() : golden_dir() / checkpoint;
  json.at("ids").get_to(golden.ids);
  json.at("greedy_hf").get_to(golden.greedy_hf);
  golden.greedy_fp8 = json.value("greedy_fp8", std::vector<uint32_t>());
  golden.hf = read_floats(golden_dir() / (name + ".hf.f32"));
  golden.fp8 = read_floats(golden_dir() / (name + ".fp8.f32"));
  golden.mtp_fp8 = read_floats(golden_dir() / (name + ".mtp_fp8.f32"));
  if (golden.hf.empty()) throw std::runtime_error("no logits of golden " + name);
  return golden;
}

HeldOut load_held_out() {
  const auto json = nlohmann::json::parse(read_text(golden_dir() / "fables_heldout.json"));
  HeldOut held_out;
  held_out.text = read_text(golden_dir() / "fables_heldout.txt");
  json.at("tokens").get_to(held_out.tokens);
  json.at("window").get_to(held_out.window);
  json.at("perplexity_unquantised_activations").get_to(held_out.perplexity_unquantised);
  json.at("perplexity_fp8").get_to(held_out.perplexity_fp8);
  json.at("mtp_greedy_acceptance").get_to(held_out.mtp_greedy_acceptance);
  return held_out;
}

}  // namespace hadal::test
