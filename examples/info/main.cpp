// hadal-info [MODEL_DIR | --list | --json]: devices with their limits and features, the path that
// each kernel would take and why; of a checkpoint, its parameters, bytes by type and memory plan.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <optional>

#include "common/program.h"
#include "hadal/bf16_gemm.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"
#include "hadal/model/safetensors.h"
#include "hadal/model/weights.h"
#include "hadal/runtime/memory_plan.h"
#include "info/json.h"

namespace {

using namespace hadal;
constexpr const char* kProgram = "hadal-info";

const char* kind(const Caps& caps) {
  return caps.is_cpu ? "cpu" : "gpu";
}
const char* yes_no(bool value) {
  return value ? "yes" : "no";
}

void print_device(size_t index, const Caps& c) {
  fmt::print("device {}: {} ({})\n", index, c.device_name, kind(c));
  fmt::print("  driver          {} {}\n", c.driver_name, c.driver_info);
  fmt::print("  vulkan          {}.{}.{}\n", c.api_version >> 22, (c.api_version >> 12) & 0x3ff,
             c.api_version & 0xfff);
  if (const std::string missing = missing_requirement(c); !missing.empty()) {
    fmt::print("  NOT USABLE      lacks {}\n", missing);
    return;
  }
  fmt::print("  subgroup        {} ({} to {})\n", c.subgroup_size, c.min_subgroup_size,
             c.max_subgroup_size);
  fmt::print("  workgroup       {} invocations, {} of shared memory\n", c.max_workgroup_invocations,
             examples::bytes_text(c.max_shared_memory_bytes));
  fmt::print("  memory          {} free of {}, one allocation at most {}\n",
             examples::bytes_text(c.device_heap_free_bytes),
             examples::bytes_text(c.device_heap_bytes),
             examples::bytes_text(c.max_allocation_bytes));
  fmt::print("  timestamps      {}\n",
             c.timestamp_period_ns > 0 ? fmt::format("{} ns", c.timestamp_period_ns) : "no");
  fmt::print(
      "  optional        float16 {}, bfloat16 {}, float8 {}, cooperative matrix {}, "
      "cooperative matrix 2 {}, host memory import {}\n",
      yes_no(c.shader_float16), yes_no(c.shader_bfloat16), yes_no(c.shader_float8),
      yes_no(c.cooperative_matrix), yes_no(c.cooperative_matrix2), yes_no(c.external_memory_host));
  for (const CoopMatrixShape& s : c.coop_matrix_shapes) {
    fmt::print("  coopmat         {}x{}x{} types a {} b {} c {} d {}\n", s.m, s.n, s.k, s.a_type,
               s.b_type, s.c_type, s.result_type);
  }
}

// Configurations at DeepSeek-V3's sizes: a decode row, a small and a large batch.
void print_paths(const Caps& c) {
  for (uint32_t m : {1u, 8u, 512u}) {
    fmt::print("  m = {:<4} {}\n", m,
               fp8_gemm_choose(Fp8GemmShape::packed(m, 7168, 2048), c).to_string());
    fmt::print("           {}\n",
               fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(m * 8, 256, 2048, 7168), c)
                   .to_string());
    fmt::print("           {}\n",
               bf16_gemm_choose(Bf16GemmShape::packed(m, 129280, 7168), c).to_string());
  }
  MlaPrefillShape prefill = MlaPrefillShape::packed(0, 512, 128, 128, 64, 128);
  MlaDecodeShape decode = MlaDecodeShape::packed(1, 128, 512, 64, 4096, 4096);
  fmt::print("           {}\n", mla_prefill_choose(prefill, c).to_string());
  fmt::print("           {}\n", mla_decode_choose(decode, c).to_string());
}

uint64_t elements(const model::TensorView& t) {
  uint64_t count = 1;
  for (uint64_t d : t.shape) count *= d;
  return count;
}

// What of the checkpoint fits on the devices that this machine has.
void print_fit(const model::ModelConfig& config, uint64_t weights,
               const model::ModelOptions& options, CacheFormat format) {
  examples::prepare_cpu_driver(0);
  const Result<std::vector<Caps>> devices = list_devices();
  if (!devices.ok()) return;  // a plan needs none
  for (const Caps& caps : *devices) {
    if (!missing_requirement(caps).empty()) continue;
    const runtime::MemoryPlan plan = runtime::plan_memory(config, weights, options, format, caps);
    fmt::print("  fits            {} with {} free: {} of these contexts at once, {}\n",
               caps.device_name, examples::bytes_text(plan.free_bytes), plan.sequences(),
               plan.longest_context
                   ? fmt::format("one of at most {} positions", plan.longest_context)
                   : "not even one position");
  }
}

Status print_checkpoint(const std::filesystem::path& dir, uint32_t context, CacheFormat format) {
  HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(dir));
  HADAL_ASSIGN(const model::Checkpoint checkpoint, model::Checkpoint::open(dir));
  uint64_t parameters = 0;
  std::map<std::string, std::pair<uint64_t, uint64_t>> by_type;  // tensors, bytes
  for (const model::TensorView& t : checkpoint.tensors()) {
    // Block scales belong to the format, not to the model.
    if (!t.name.ends_with("_scale_inv")) parameters += elements(t);
    auto& [count, bytes] = by_type[std::string(model::dtype_name(t.dtype))];
    ++count;
    bytes += t.bytes.size();
  }
  HADAL_ASSIGN(context, examples::choose_context(context, config));
  // Refused before anything is printed.
  HADAL_ASSIGN(const uint64_t weights, model::weights_device_bytes(checkpoint, config));
  fmt::print("checkpoint {}\n", dir.string());
  fmt::print(
      "  architecture    {}, {} layers ({} dense) + {} MTP, {} heads, {} experts ({} active, "
      "{} shared)\n",
      config.architecture, config.num_hidden_layers,
      std::min(config.first_k_dense_replace, config.num_hidden_layers),
      config.num_nextn_predict_layers, config.num_attention_heads, config.n_routed_experts,
      config.num_experts_per_tok, config.n_shared_experts);
  fmt::print("  parameters      {} in {} tensors\n", parameters, checkpoint.tensors().size());
  for (const auto& [type, entry] : by_type) {
    fmt::print("  {:<15} {} in {} tensors\n", type, examples::bytes_text(entry.second),
               entry.first);
  }
  model::ModelOptions options;
  options.max_context = context;
  options.max_tokens = std::min(options.max_tokens, context);
  const uint64_t work = model::workspace_bytes(config, options);
  const uint64_t cache =
      model::cache_bytes(config, ceil_div(context, runtime::kPageTokens), format);
  fmt::print("  plan            weights {}, workspace {}, {} cache of {} positions {}: {}\n",
             examples::bytes_text(weights), examples::bytes_text(work), cache_format_name(format),
             context, examples::bytes_text(cache), examples::bytes_text(weights + work + cache));
  print_fit(config, weights, options, format);
  return {};
}

Status run(const std::optional<std::string>& directory, bool list, bool json, uint32_t context,
           CacheFormat format) {
  if (directory) return print_checkpoint(*directory, context, format);
  examples::prepare_cpu_driver(0);
  HADAL_ASSIGN(const std::vector<Caps> devices, list_devices());
  if (json) {
    fmt::print("{}\n", examples::devices_json(devices));
    return {};
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    if (list) {
      fmt::print("{} {} {}\n", i, kind(devices[i]), devices[i].device_name);
      continue;
    }
    print_device(i, devices[i]);
    if (missing_requirement(devices[i]).empty()) print_paths(devices[i]);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<std::string> directory;
  CacheFormat cache = CacheFormat::kF32;
  bool list = false, json = false;
  uint32_t context = 0;
  CLI::App app("Devices and kernel paths; of a checkpoint, its content and memory plan.", kProgram);
  app.add_option("MODEL_DIR", directory, "describe this checkpoint instead of the devices");
  app.add_flag("--list", list, "one line per device: index, cpu or gpu, name");
  app.add_flag("--json", json, "all that the devices expose and the kernels' paths, as JSON")
      ->excludes("MODEL_DIR")
      ->excludes("--list");
  app.add_option("--context", context, "positions of the memory plan; 0 is the model's own");
  examples::add_cache_option(app, cache);
  return examples::run_program(app, argc, argv,
                               [&] { return run(directory, list, json, context, cache); });
}
