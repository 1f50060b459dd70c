#include "fuzz/capi.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "fuzz/abi.h"

namespace hadal::fuzz {
namespace {

// Mostly sizes that kernels take, some at the edges of 32 bits.
uint32_t size_of(ByteSource& random) {
  static constexpr uint32_t kEdges[] = {0,          1,          2,          127,        128,
                                        129,        65535,      65536,      1u << 24,   1u << 30,
                                        0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff};
  switch (random() % 8) {
    case 0: return kEdges[random() % std::size(kEdges)];
    case 1: return random();
    case 2: return random() % 8;
    default: return 16 * (random() % 40);
  }
}

hadal_range range_of(const CapiWorld& world, ByteSource& random) {
  hadal_range r{};
  switch (random() % 10) {
    case 0: return r;
    case 1: r.address = world.memory->address + random() % 64; break;
    case 2: r.address = ~uint64_t{random()}; break;
    case 3: r.buffer = world.memory->buffer, r.offset = random() % 4096; break;
    case 4: r.buffer = world.memory->buffer, r.offset = random() % 4096 / 16 * 16; break;
    default: r.address = world.memory->address + random() % 4096 / 16 * 16; break;
  }
  if (random() % 2) r.bytes = random() % 2 ? random() % 65536 : ~uint64_t{0} - random() % 64;
  return r;
}

// Everything behind struct_size with sizes, and from `ranges` on with ranges.
template <class T>
T filled(const CapiWorld& world, ByteSource& random, size_t ranges = sizeof(T)) {
  T value = sized<T>();
  auto* bytes = reinterpret_cast<unsigned char*>(&value);
  for (size_t at = sizeof(size_t); at + 4 <= ranges; at += 4) {
    // Zeros too, or no desc would ever have its tight strides.
    const uint32_t word = random() % 2 ? 0 : size_of(random);
    std::memcpy(bytes + at, &word, 4);
  }
  for (size_t at = ranges; at + sizeof(hadal_range) <= sizeof(T); at += sizeof(hadal_range)) {
    const hadal_range r = range_of(world, random);
    std::memcpy(bytes + at, &r, sizeof(r));
  }
  return value;
}

template <class Desc, class Args>
struct Calls {
  hadal_status (*plan)(hadal_context*, const Desc*, hadal_plan**, hadal_error*);
  hadal_status (*record)(const hadal_plan*, VkCommandBuffer, const Args*, hadal_error*);
  size_t ranges;  // where the args' ranges begin
};

template <class Desc, class Args>
Outcome record(const CapiWorld& world, ByteSource& random, const Calls<Desc, Args>& calls,
               const hadal_plan* plan) {
  Outcome outcome;
  if (hadal_plan_scratch_bytes(plan) >= uint64_t{1} << 56) outcome.fault = "scratch wrapped around";
  for (int i = 0; i < 4 && outcome.fault.empty(); ++i) {
    Args args = filled<Args>(world, random, calls.ranges);
    if (i < 2) {  // what a right call would have
      for (size_t at = sizeof(size_t); at + 4 <= calls.ranges; at += 4) {
        const uint32_t few = random() % 3;
        std::memcpy(reinterpret_cast<unsigned char*>(&args) + at, &few, 4);
      }
    }
    hadal_error error = HADAL_ERROR_INIT;
    hadal_status status;
    if (random() % 16 == 1) {
      const auto other = with_other_size(args, random);
      status =
          calls.record(plan, world.commands, reinterpret_cast<const Args*>(other.get()), &error);
    } else {
      status = calls.record(plan, world.commands, &args, &error);
    }
    outcome.accepted |= status == HADAL_OK;
    outcome.fault = fault_of(status, error);
  }
  return outcome;
}

// A desc changed from `base` in a few words, planned, and recorded with four args.
template <class Desc, class Args>
Outcome once(const CapiWorld& world, Bytes bytes, const Calls<Desc, Args>& calls, Desc desc) {
  ByteSource random(bytes);
  auto* words = reinterpret_cast<unsigned char*>(&desc);
  constexpr size_t kWords = (sizeof(Desc) - sizeof(size_t)) / 4;
  for (size_t changes = random() % 4; changes > 0; --changes) {
    const uint32_t word = size_of(random);
    std::memcpy(words + sizeof(size_t) + 4 * (random() % kWords), &word, 4);
  }
  if (random() % 20 == 1) desc = filled<Desc>(world, random);
  hadal_error error = HADAL_ERROR_INIT;
  hadal_plan* plan = nullptr;
  hadal_status status;
  if (random() % 16 == 1) {
    const auto other = with_other_size(desc, random);
    status = calls.plan(world.context, reinterpret_cast<const Desc*>(other.get()), &plan, &error);
  } else {
    status = calls.plan(world.context, &desc, &plan, &error);
  }
  Outcome outcome{.fault = fault_of(status, error)};
  if ((plan != nullptr) != (status == HADAL_OK)) outcome.fault = "a plan from a call that failed";
  if (plan && outcome.fault.empty()) outcome = record(world, random, calls, plan);
  hadal_plan_destroy(plan);
  return outcome;
}

#define HADAL_FUZZ_KERNEL(kernel, first_range, ...)            \
  Outcome fuzz_##kernel(const CapiWorld& world, Bytes bytes) { \
    auto d = sized<hadal_##kernel##_desc>();                   \
    __VA_ARGS__;                                               \
    return once<hadal_##kernel##_desc, hadal_##kernel##_args>( \
        world, bytes,                                          \
        {hadal_##kernel##_plan, hadal_##kernel##_record,       \
         offsetof(hadal_##kernel##_args, first_range)},        \
        d);                                                    \
  }

HADAL_FUZZ_KERNEL(fp8_quantize, x, d.rows = 4, d.k = 256)
HADAL_FUZZ_KERNEL(fp8_gemm, a, d.m = 4, d.n = 64, d.k = 256)
HADAL_FUZZ_KERNEL(fp8_grouped_gemm, a, d.rows = 4, d.experts = 3, d.n = 64, d.k = 256)
HADAL_FUZZ_KERNEL(bf16_gemm, a, d.m = 4, d.n = 64, d.k = 256)
HADAL_FUZZ_KERNEL(bf16_grouped_gemm, a, d.rows = 4, d.experts = 3, d.n = 64, d.k = 256)
HADAL_FUZZ_KERNEL(rms_norm, x, d.rows = 4, d.n = 256, d.flags = HADAL_RMS_NORM_Y)
HADAL_FUZZ_KERNEL(swiglu, gate, d.rows = 4, d.n = 256, d.flags = HADAL_SWIGLU_Y)
HADAL_FUZZ_KERNEL(rope, x, d.rows = 4, d.heads = 2, d.dim = 64, d.max_position = 100)
HADAL_FUZZ_KERNEL(embedding, ids, d.tokens = 4, d.hidden = 64, d.vocab = 100)
HADAL_FUZZ_KERNEL(moe_gate, logits, d.tokens = 4, d.experts = 16, d.top_k = 2)
HADAL_FUZZ_KERNEL(moe_permute, indices, d.tokens = 4, d.experts = 16, d.top_k = 2, d.tile_m = 4,
                  d.command_count = 1)
HADAL_FUZZ_KERNEL(moe_combine, x, d.tokens = 4, d.hidden = 64, d.top_k = 2)
HADAL_FUZZ_KERNEL(moe_tiles, segments, d.experts = 3, d.rows = 9, d.tile_m = 4, d.command_count = 1)
HADAL_FUZZ_KERNEL(mla_cache_write, y, d.tokens = 4, d.rank = 128, d.rope = 16, d.cache_rows = 64,
                  d.max_position = 100)
HADAL_FUZZ_KERNEL(mla_cache_read, cache, d.rank = 128, d.rope = 16, d.cache_rows = 64,
                  d.table_pages = 1)
HADAL_FUZZ_KERNEL(mla_decode, q_latent, d.tokens = 4, d.heads = 4, d.rank = 64, d.rope = 16,
                  d.max_kv_len = 64, d.cache_rows = 64)
HADAL_FUZZ_KERNEL(mla_prefill, q, d.q_len = 4, d.heads = 2, d.nope = 16, d.rope = 8, d.v = 16)
HADAL_FUZZ_KERNEL(mla_absorb, in, d.tokens = 4, d.heads = 2, d.nope = 16, d.v = 16, d.rank = 64)
HADAL_FUZZ_KERNEL(sample, logits, d.rows = 4, d.vocab = 100)
HADAL_FUZZ_KERNEL(logit_adjust, x, d.rows = 4, d.vocab = 100, d.listed = 2, d.edits = 3,
                  d.masks = 2, d.in_place = VK_TRUE)
HADAL_FUZZ_KERNEL(top_logprobs, logits, d.rows = 4, d.vocab = 100, d.top = 3)

Outcome fuzz_swiglu_tiles(const CapiWorld& world, Bytes bytes) {
  auto d = sized<hadal_swiglu_desc>();
  d.rows = 4, d.n = 256, d.flags = HADAL_SWIGLU_Y;
  return once<hadal_swiglu_desc, hadal_swiglu_tiles_args>(
      world, bytes,
      {hadal_swiglu_tiles_plan, hadal_swiglu_tiles_record, offsetof(hadal_swiglu_tiles_args, gate)},
      d);
}

// The functions of sizes that need no context.
Outcome fuzz_sizes(const CapiWorld&, Bytes bytes) {
  ByteSource random(bytes);
  const auto size = [&] { return random() >> random() % 32; };
  const uint32_t rows = size(), experts = size(), tile_m = size();
  const uint32_t tiles = hadal_grouped_gemm_max_tiles(rows, experts, tile_m);
  if (tiles > rows) return {.fault = "more tiles than rows"};
  // One expert's rows or more fill all tiles but the last one.
  if (tile_m && experts && uint64_t{tiles} * tile_m + tile_m < rows)
    return {.fault = "too few tiles"};
  const uint32_t format = size() % 5, rank = size(), rope = size();
  const uint32_t stride = hadal_cache_row_stride(format, rank, rope);
  const uint64_t row_bytes = hadal_cache_row_bytes(format, stride);
  if (stride && row_bytes < uint64_t{rank} + rope) return {.fault = "a row below its channels"};

  // A table of exactly as many bytes as it is said to have.
  const uint32_t count = random() % 40, first = size(), positions = random() % 40;
  std::vector<double> frequencies(count, 1.0 / (1 + random() % 100));
  std::vector<float> table(size_t{count} * positions * 2);
  hadal_error error = HADAL_ERROR_INIT;
  const hadal_status status =
      hadal_rope_table(frequencies.data(), count, 1.0, first, positions, table.data(), &error);
  return {.accepted = status == HADAL_OK, .fault = fault_of(status, error)};
}

// What a host asks before it makes its device.
Outcome fuzz_query(const CapiWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  hadal_device_query query = world.query;
  query.api_version = random() % 2 ? size_of(random) : VK_MAKE_API_VERSION(0, 1, random() % 6, 0);
  auto feature = sized<hadal_feature>();
  hadal_error error = HADAL_ERROR_INIT;
  const uint32_t index = random() % 2 ? size_of(random) : random() % 40;
  hadal_status status = hadal_device_feature(&query, index, &feature, &error);
  if (std::string fault = fault_of(status, error); !fault.empty()) return {.fault = fault};
  if (status == HADAL_OK && index >= hadal_feature_count()) return {.fault = "a feature too many"};
  const uint32_t room = random() % 12;
  // For exactly as many, and not null where it is for none: null asks for the count.
  const auto names = std::make_unique<const char*[]>(room);
  uint32_t count = room;
  error = HADAL_ERROR_INIT;
  status = hadal_device_extensions(&query, &count, names.get(), &error);
  if (status == HADAL_OK && count > room) return {.fault = "more names than asked for"};
  return {.accepted = status == HADAL_OK, .fault = fault_of(status, error)};
}

#define HADAL_FUZZ_TARGET(name) \
  { #name, fuzz_##name }
constexpr CapiTarget kTargets[] = {HADAL_FUZZ_TARGET(fp8_quantize),
                                   HADAL_FUZZ_TARGET(fp8_gemm),
                                   HADAL_FUZZ_TARGET(fp8_grouped_gemm),
                                   HADAL_FUZZ_TARGET(bf16_gemm),
                                   HADAL_FUZZ_TARGET(bf16_grouped_gemm),
                                   HADAL_FUZZ_TARGET(rms_norm),
                                   HADAL_FUZZ_TARGET(swiglu),
                                   HADAL_FUZZ_TARGET(swiglu_tiles),
                                   HADAL_FUZZ_TARGET(rope),
                                   HADAL_FUZZ_TARGET(embedding),
                                   HADAL_FUZZ_TARGET(moe_gate),
                                   HADAL_FUZZ_TARGET(moe_permute),
                                   HADAL_FUZZ_TARGET(moe_combine),
                                   HADAL_FUZZ_TARGET(moe_tiles),
                                   HADAL_FUZZ_TARGET(mla_cache_write),
                                   HADAL_FUZZ_TARGET(mla_cache_read),
                                   HADAL_FUZZ_TARGET(mla_decode),
                                   HADAL_FUZZ_TARGET(mla_prefill),
                                   HADAL_FUZZ_TARGET(mla_absorb),
                                   HADAL_FUZZ_TARGET(sample),
                                   HADAL_FUZZ_TARGET(logit_adjust),
                                   HADAL_FUZZ_TARGET(top_logprobs),
                                   HADAL_FUZZ_TARGET(sizes),
                                   HADAL_FUZZ_TARGET(query)};

}  // namespace

std::span<const CapiTarget> capi_targets() {
  return kTargets;
}

std::vector<Seed> capi_seeds(const std::string& target) {
  std::vector<Seed> seeds;
  std::mt19937 random(29);
  for (int i = 0; i < 50; ++i) {
    Seed seed{"random-" + std::to_string(i), std::vector<uint8_t>(kCapiBytes)};
    for (uint8_t& byte : seed.bytes) byte = uint8_t(random());
    seeds.push_back(std::move(seed));
  }
  for (Seed& seed : seeds_of("capi_" + target)) seeds.push_back(std::move(seed));
  return seeds;
}

}  // namespace hadal::fuzz
