// A request between two steps as bytes: what another engine, in another process or on another
// device, needs to go on with it. Pure; no path, no pointer, no number that depends on the host.
//
// Version 1, little-endian:
//
//   bytes   what
//   8       "HADALSEQ"
//   4       version
//   4       D, bytes of the description
//   8       R, bytes of the rows
//   8       XXH64 (seed 0) of the D + R bytes that follow
//   D       description: the cache (u64 fingerprint, u32 format, page tokens, main layers, MTP
//           layers, row bytes, flags), u32 prompt tokens, length, computed rows, i32 priority, u32
//           count and ids, sampling (f32 temperature, u32 top_k, f32 top_p, min_p, u64 seed, f32
//           repetition, presence and frequency penalty, u32 count and biased ids, u32 count and
//           bits of their f32 biases), u32 log-probabilities (2^32 - 1: none), u32 count and stop
//           ids, u32 count and drafts, u32 count and stop strings (u32 bytes and those)
//   R       rows: for each page of positions, for each layer (main ones first), the computed rows
//           of the page; of MTP layers those of prompt positions, and zeros behind them
//
// The phase of a position is part of it: positions below the prompt's tokens were or will be
// computed by prefill, the others by decode, here as there.
//
// A checksum finds damage, not malice: whoever imports takes the numbers of the rows as they are.
// They reach only the tokens of that request, and no row of it is ever taken over by another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/cache_format.h"
#include "hadal/runtime/sampling_options.h"
#include "hadal/status.h"

namespace hadal::runtime {

// Whose rows fit into whose cache: all must be equal, but for MTP layers, which may be absent (0).
struct CacheIdentity {
  uint64_t model = 0;  // model::Weights::fingerprint
  CacheFormat format = CacheFormat::kF32;
  uint32_t page_tokens = 0;
  uint32_t layers = 0, mtp_layers = 0;
  uint32_t row_bytes = 0;
  bool rounded_latents = false;  // model::ModelOptions::round_latent
};

struct SequenceState {
  CacheIdentity cache;
  std::vector<uint32_t> ids;   // prompt and generated tokens
  uint32_t prompt_tokens = 0;  // at least 1
  uint32_t length = 0;         // ends with so many tokens, prompt included; above ids.size()
  uint32_t computed = 0;       // rows [0, computed) are there; below ids.size()
  int32_t priority = 0;
  SamplingOptions sampling;
  std::optional<uint32_t> logprobs;
  bool masked = false;  // has a mask, which is code and stays behind
  std::vector<uint32_t> stop_ids;
  std::vector<std::string> stop;
  std::vector<uint32_t> drafts;     // guesses of the tokens behind ids
  std::span<const std::byte> rows;  // parsed: inside the bytes that were given
};

inline constexpr uint32_t kSequenceStateVersion = 1;
inline constexpr size_t kSequenceHeaderBytes = 32;

// Bytes of the rows of `computed` positions. No overflow for an identity that was parsed.
[[nodiscard]] uint64_t sequence_rows_bytes(const CacheIdentity& cache, uint32_t computed);
// The most bytes that a state of so many positions can have, for a reader's limit; its biases, stop
// ids and drafts are at most 2^20 each.
[[nodiscard]] uint64_t most_sequence_bytes(const CacheIdentity& cache, uint32_t positions);

// The state's bytes; `fill` writes the rows (state.rows is not read), zeros until then.
[[nodiscard]] Result<std::vector<std::byte>> write_sequence_state(
    const SequenceState& state, const std::function<Status(std::span<std::byte> rows)>& fill);

// All bytes of the state whose first kSequenceHeaderBytes are given. Errors: kMalformed for bytes
// that are no state, kUnsupported for another version.
[[nodiscard]] Result<uint64_t> sequence_state_bytes(std::span<const std::byte> header);
// Errors: kMalformed naming the field and its rule (short, long or damaged bytes, counts and sizes
// that contradict each other), kUnsupported for another version or an unknown flag or format.
// Allocates at most a few times the bytes' own size.
[[nodiscard]] Result<SequenceState> parse_sequence_state(std::span<const std::byte> bytes);

// Ok when rows of `from` can go into a cache of `to`. Errors: kInvalidArgument naming the first
// difference.
[[nodiscard]] Status check_same_cache(const CacheIdentity& from, const CacheIdentity& to);

}  // namespace hadal::runtime
