#include "attention_paths.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/device.h"
#include "kernel_util.h"
#include "layout/attention_coopmat.h"
#include "layout/attention_shared.h"
#include "layout/interop.h"
#include "layout/kv_page.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kMaxAccumulators = 128;  // of values, per invocation
constexpr uint32_t kWorkgroup = 256;        // invocations, about

constexpr std::string_view kTooMuchMemory =
    "{} rows need {} bytes of shared memory, the device has {}";

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
  uint32_t subgroups = 16;
  while (subgroups > 1 && subgroups * t.subgroup_size > kWorkgroup) subgroups /= 2;
  while (subgroups > 1 && subgroups / 2 * shape.n >= values) subgroups /= 2;
  while (subgroups < fewest) subgroups *= 2;
  while (subgroups > std::max(fewest, most)) subgroups /= 2;
  if (subgroups > most) {
    why.format = "{} rows need {} subgroups, the device allows {}";
    why.numbers = {rows, subgroups, most};
    return {};
  }
  t.workgroup_size = subgroups * t.subgroup_size;
  t.value_slice = subgroups * shape.n;
  t.value_slices = std::max(ceil_div(values, t.value_slice), 1u);
  if (rows * t.value_slices * shape.n > kMaxAccumulators * t.subgroup_size) {
    why.format = "{} rows of {} value channels are more than {} accumulators an invocation";
    why.numbers = {rows, values, kMaxAccumulators};
    return {};
  }
  for (uint32_t slice : {64u, 32u, 16u}) {
    if (slice % shape.k) continue;
    t.slice = slice;
    t.shared_bytes =
        HADAL_ATTENTION_COOP_SHARED_BYTES(rows, slice, t.value_slice, subgroups, shape.m, shape.n);
    if (t.shared_bytes <= caps.max_shared_memory_bytes) return t;
  }
  why.format = kTooMuchMemory;
  why.numbers = {rows, t.shared_bytes, caps.max_shared_memory_bytes};
  return {};
}

// The tile of kShared: the tallest that the rows fill by more than half.
std::optional<AttentionTile> shared_tile(const AttentionSizes& sizes, const Caps& caps,
                                         AttentionRejection& why) {
  why = {AttentionPath::kShared, {}, {}};
  const uint32_t most =
      std::min({kWorkgroup, caps.max_workgroup_invocations, caps.max_workgroup_size[0]});
  AttentionTile t;
  t.slice = 32, t.value_slice = layout::kAttentionSharedValueSlice;
  t.value_slices = std::max(ceil_div(sizes.values, t.value_slice), 1u);
  for (t.rows = 32; t.rows >= 4; t.rows /= 2) {
    if (t.rows > 4 && sizes.rows * 2 <= t.rows) continue;
    t.workgroup_size = t.rows * layout::kAttentionSharedColumns;
    while (t.workgroup_size > most) t.workgroup_size /= 2;
    t.shared_bytes = HADAL_ATTENTION_SHARED_BYTES(t.rows, t.slice);
    const uint32_t sums = t.rows * t.value_channels() / t.workgroup_size;
    if (sums <= kMaxAccumulators && t.shared_bytes <= caps.max_shared_memory_bytes) return t;
  }
  t.rows = 4;
  why.format = kTooMuchMemory;
  why.numbers = {t.rows, t.shared_bytes, caps.max_shared_memory_bytes};
  return {};
}

// The tile of kCoopMat: the tallest that the rows fill by more than half, else the smallest one.
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
    case AttentionPath::kShared: return "shared";
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
  std::string text = fmt::format("{} rows x {} channels, {} slices of {} value channels", t.rows,
                                 t.slice, t.value_slices, t.value_slice);
  if (t.coop_m) {
    text += fmt::format(", matrix {}x{}x{}, subgroup {}", t.coop_m, t.coop_n, t.coop_k,
                        t.subgroup_size);
  }
  return text + fmt::format(", workgroup {}, shared {} bytes", t.workgroup_size, t.shared_bytes);
}

AttentionPathChoice choose_attention_path(const AttentionSizes& sizes, const Caps& caps,
                                          const AttentionPolicy& policy) {
  AttentionPathChoice choice;
  size_t rejected = 0;
  for (const auto path : {AttentionPath::kCoopMat, AttentionPath::kShared, AttentionPath::kLanes}) {
    AttentionRejection& why = choice.rejected[rejected];
    std::optional<AttentionTile> tile;
    if (path == AttentionPath::kCoopMat) {
      tile = choose_tile(sizes, caps, why);
    } else if (path == AttentionPath::kShared) {
      tile = shared_tile(sizes, caps, why);
    } else {
      why = sizes.lanes;
      why.path = path;
    }
    if (!why.format.empty()) {
    } else if (policy.path && *policy.path != path) {
      why.format = "the policy demands another path";
    } else if (path == AttentionPath::kCoopMat && !policy.half_operands) {
      why.format = "the policy excludes operands of halves";
    } else if (tile && caps.is_cpu && !policy.path) {
      why.format = "slower on a CPU driver";
    } else {
      choice.path = path;
      if (tile) choice.tile = *tile;
      why = {};
      return choice;
    }
    ++rejected;
  }
  return choice;
}

Result<const vk::Pipeline*> attention_tile_pipeline(
    Device& device, AttentionPath path, std::string_view module, const AttentionTile& tile,
    bool use_fma, std::initializer_list<vk::SpecConstant> constants, uint32_t push_bytes) {
  using namespace layout;
  const Caps& caps = device.caps();
  const bool coopmat = path == AttentionPath::kCoopMat;
  AttentionRejection why;
  AttentionSizes sizes;
  sizes.coopmat_module = module, sizes.rows = tile.rows, sizes.values = tile.value_channels();
  if (!(coopmat ? choose_tile(sizes, caps, why) : shared_tile(sizes, caps, why))) {
    return Status(Errc::kUnsupported,
                  fmt::format("{}: path cannot run, {}", module, why.to_string()));
  }
  const uint32_t subgroups = coopmat ? tile.workgroup_size / tile.subgroup_size : 0;
  const vk::SpecConstant coopmat_constants[] = {
      {kAttentionCoopSpecRows, tile.rows},
      {kAttentionCoopSpecSlice, tile.slice},
      {kAttentionCoopSpecSubgroups, subgroups},
      {kAttentionCoopSpecSubgroupSize, tile.subgroup_size},
      {kAttentionCoopSpecValueMats, tile.value_slices},
      {kAttentionCoopSpecCoopM, tile.coop_m},
      {kAttentionCoopSpecCoopN, tile.coop_n},
      {kAttentionCoopSpecCoopK, tile.coop_k}};
  const vk::SpecConstant shared_constants[] = {
      {kAttentionSharedSpecRows, tile.rows},
      {kAttentionSharedSpecSlice, tile.slice},
      {kAttentionSharedSpecInvocations, tile.workgroup_size},
      {kAttentionSharedSpecValueSlices, tile.value_slices}};
  const auto path_constants = coopmat ? std::span<const vk::SpecConstant>(coopmat_constants)
                                      : std::span<const vk::SpecConstant>(shared_constants);
  std::array<vk::SpecConstant, vk::PipelineKey::kMaxConstants> all;
  all[0] = {kSpecUseFma, use_fma};
  auto end = std::copy(path_constants.begin(), path_constants.end(), all.begin() + 1);
  end = std::copy(constants.begin(), constants.end(), end);
  return vk::Pipeline::get(device, module, tile.workgroup_size,
                           std::span<const vk::SpecConstant>(all.begin(), end), push_bytes,
                           tile.subgroup_size);
}

}  // namespace hadal
