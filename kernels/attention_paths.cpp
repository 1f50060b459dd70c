#include "attention_paths.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/device.h"
#include "kernel_util.h"
#include "layout/attention_coopmat.h"
#include "layout/interop.h"
#include "layout/kv_page.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kMaxAccumulators = 128;  // of values, per invocation
constexpr uint32_t kWorkgroup = 256;        // invocations, about

// The largest shape f16 x f16 -> f32 whose sizes divide a block of 64 keys and whose staged rows
// are 16-byte words; of equal ones that with the fewest rows. From caps alone: it is part of the
// bits.
std::optional<CoopMatrixShape> coop_shape(const Caps& caps) {
  constexpr uint32_t kKeys = layout::kKvPageTokens;
  std::optional<CoopMatrixShape> best;
  for (const CoopMatrixShape& s : caps.coop_matrix_shapes) {
    if (s.a_type != kCoopFloat16 || s.b_type != kCoopFloat16) continue;
    if (s.c_type != kCoopFloat32 || s.result_type != kCoopFloat32) continue;
    if (s.m == 0 || s.n < 8 || s.k < 8 || kKeys % s.m || kKeys % s.n || kKeys % s.k) continue;
    const auto volume = [](const CoopMatrixShape& x) { return x.m * x.n * x.k; };
    if (!best || volume(s) > volume(*best) || (volume(s) == volume(*best) && s.m < best->m))
      best = s;
  }
  return best;
}

// The tile of `rows` rows, or why there is none.
std::optional<AttentionTile> coop_tile(uint32_t rows, uint32_t values, const CoopMatrixShape& shape,
                                       const Caps& caps, AttentionRejection& why) {
  AttentionTile t;
  t.rows = rows;
  t.coop_m = shape.m, t.coop_n = shape.n, t.coop_k = shape.k;
  t.subgroup_size = caps.subgroup_size;
  // A subgroup's scores are of one row of matrices; none idles over the values.
  const uint32_t fewest = rows / shape.m;
  const uint32_t most =
      std::min({caps.max_workgroup_invocations / caps.subgroup_size,
                caps.max_workgroup_size[0] / caps.subgroup_size, caps.max_workgroup_subgroups});
  t.subgroups = 16;
  while (t.subgroups > 1 && t.subgroups * t.subgroup_size > kWorkgroup) t.subgroups /= 2;
  while (t.subgroups > 1 && t.subgroups / 2 * shape.n >= values) t.subgroups /= 2;
  while (t.subgroups < fewest) t.subgroups *= 2;
  while (t.subgroups > std::max(fewest, most)) t.subgroups /= 2;
  if (t.subgroups > most) {
    why.format = "{} rows need {} subgroups, the device allows {}";
    why.numbers = {rows, t.subgroups, most};
    return {};
  }
  t.value_mats = std::max(ceil_div(values, t.subgroups * shape.n), 1u);
  if (rows * t.value_mats * shape.n > kMaxAccumulators * t.subgroup_size) {
    why.format = "{} rows of {} value channels are more than {} accumulators an invocation";
    why.numbers = {rows, values, kMaxAccumulators};
    return {};
  }
  for (uint32_t slice : {64u, 32u, 16u}) {
    if (slice % shape.k) continue;
    t.slice = slice;
    t.shared_bytes = HADAL_ATTENTION_COOP_SHARED_BYTES(rows, slice, t.subgroups * shape.n,
                                                       t.subgroups, shape.m, shape.n);
    if (t.shared_bytes <= caps.max_shared_memory_bytes) return t;
  }
  why.format = "{} rows need {} bytes of shared memory, the device has {}";
  why.numbers = {rows, t.shared_bytes, caps.max_shared_memory_bytes};
  return {};
}

// The tallest tile that the rows fill by more than half, else the smallest one that fits.
std::optional<AttentionTile> choose_tile(const AttentionSizes& sizes, const Caps& caps,
                                         AttentionRejection& why) {
  why = {AttentionPath::kCoopMat, {}, {}};
  const auto shape = coop_shape(caps);
  if (!caps.cooperative_matrix) {
    why.format = "the device has no VK_KHR_cooperative_matrix";
  } else if (!caps.shader_float16) {
    why.format = "the device has no shaderFloat16";
  } else if (!caps.subgroup_size_control) {
    why.format = "the device cannot demand full subgroups";
  } else if (!shape) {
    why.format = "no f16 x f16 -> f32 shape that divides 64 keys among the {} listed";
    why.numbers = {uint32_t(caps.coop_matrix_shapes.size())};
  } else if (!vk::has_module(sizes.coopmat_module)) {
    why.format = "not in this build, its glslc does not know the extension";
  }
  if (!why.format.empty()) return {};
  std::optional<AttentionTile> smallest;
  for (uint32_t rows = 64; rows >= shape->m; rows /= 2) {
    if (rows % shape->m) break;
    const auto tile = coop_tile(rows, sizes.values, *shape, caps, why);
    if (!tile) continue;
    smallest = tile;
    if (sizes.rows * 2 > rows) break;
  }
  if (smallest) why.format = {};
  return smallest;
}

}  // namespace

std::string_view attention_path_name(AttentionPath path) {
  switch (path) {
    case AttentionPath::kPortable: return "portable";
    case AttentionPath::kLanes: return "lanes";
    case AttentionPath::kCoopMat: return "coopmat";
  }
  return "?";
}

std::string AttentionRejection::to_string() const {
  const auto& n = numbers;
  return fmt::format("{}: {}", attention_path_name(path),
                     fmt::format(fmt::runtime(format), n[0], n[1], n[2], n[3]));
}

std::string rejections_text(const AttentionRejections& rejected) {
  std::string text;
  for (const AttentionRejection& r : rejected) {
    if (!r.format.empty()) text.append("; not ").append(r.to_string());
  }
  return text;
}

std::string to_string(const AttentionTile& t) {
  return fmt::format(
      "coopmat, {} rows x {} channels, matrix {}x{}x{}, {} subgroups of {}, {} matrices of values "
      "each, shared {} bytes",
      t.rows, t.slice, t.coop_m, t.coop_n, t.coop_k, t.subgroups, t.subgroup_size, t.value_mats,
      t.shared_bytes);
}

AttentionPathChoice choose_attention_path(const AttentionSizes& sizes, const Caps& caps,
                                          const AttentionPolicy& policy) {
  AttentionPathChoice choice;
  AttentionRejection& coopmat = choice.rejected[0];
  AttentionRejection& lanes = choice.rejected[1];
  const auto excluded = [&](AttentionPath path) { return policy.path && *policy.path != path; };
  const auto tile = choose_tile(sizes, caps, coopmat);
  lanes = sizes.lanes;
  lanes.path = AttentionPath::kLanes;
  if (tile && excluded(AttentionPath::kCoopMat)) {
    coopmat.format = "the policy demands another path";
  } else if (tile && !policy.half_operands) {
    coopmat.format = "the policy excludes operands of halves";
  } else if (tile && caps.is_cpu && !policy.path) {
    coopmat.format = "slower on a CPU driver";
  } else if (tile) {
    choice.path = AttentionPath::kCoopMat, choice.tile = *tile;
    lanes = {};
    return choice;
  }
  if (lanes.format.empty() && excluded(AttentionPath::kLanes)) {
    lanes.format = "the policy demands another path";
  } else if (lanes.format.empty()) {
    choice.path = AttentionPath::kLanes;
  }
  return choice;
}

Result<const vk::Pipeline*> attention_coopmat_pipeline(
    Device& device, std::string_view module, const AttentionTile& tile, bool use_fma,
    std::initializer_list<vk::SpecConstant> constants, uint32_t push_bytes) {
  using namespace layout;
  AttentionRejection why;
  AttentionSizes sizes;
  sizes.coopmat_module = module, sizes.rows = tile.rows, sizes.values = tile.value_channels();
  if (!choose_tile(sizes, device.caps(), why)) {
    return Status(Errc::kUnsupported,
                  fmt::format("{}: path cannot run, {}", module, why.to_string()));
  }
  const vk::SpecConstant shared[] = {{kSpecUseFma, use_fma},
                                     {kAttentionCoopSpecRows, tile.rows},
                                     {kAttentionCoopSpecSlice, tile.slice},
                                     {kAttentionCoopSpecSubgroups, tile.subgroups},
                                     {kAttentionCoopSpecSubgroupSize, tile.subgroup_size},
                                     {kAttentionCoopSpecValueMats, tile.value_mats},
                                     {kAttentionCoopSpecCoopM, tile.coop_m},
                                     {kAttentionCoopSpecCoopN, tile.coop_n},
                                     {kAttentionCoopSpecCoopK, tile.coop_k}};
  std::array<vk::SpecConstant, vk::PipelineKey::kMaxConstants> all;
  const auto end = std::copy(std::begin(shared), std::end(shared), all.begin());
  const auto count = std::copy(constants.begin(), constants.end(), end) - all.begin();
  return vk::Pipeline::get(device, module, tile.subgroups * tile.subgroup_size,
                           std::span<const vk::SpecConstant>(all).first(size_t(count)), push_bytes,
                           tile.subgroup_size);
}

}  // namespace hadal
