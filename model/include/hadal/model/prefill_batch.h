// What one prefill pass computes: chunks of one or several sequences, whose rows follow one another
// in every array of the batch. GEMMs, norms and experts see rows only; attention expands each
// sequence's latents (kv_b_proj) into a buffer of ModelOptions::expansion_rows rows, as many
// sequences at a time as it holds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/mla_prefill.h"

namespace hadal::model {

// Tokens [begin, begin + tokens) of one sequence, whose earlier positions are in the cache.
struct PrefillSequence {
  uint32_t begin = 0;                           // absolute position of the first token
  uint32_t tokens = 0;                          // at least 1
  uint32_t table_begin = 0, table_entries = 0;  // its pages in PrefillBatch::block_tables
};

// How a batch's latents go through the expansion buffer. A piece is one sequence's rows in one
// window; a sequence's pieces come in the order of its positions, at most one in a window.
struct PrefillExpansion {
  struct Window {
    uint32_t first = 0, pieces = 0;  // of `pieces`
    uint32_t kv_rows = 0;            // of all its pieces
    uint32_t max_q_len = 0;          // of the longest sequence in it
  };
  std::vector<MlaPrefillSequence> pieces;
  std::vector<uint32_t> sequences;  // of each piece, its index in the batch
  std::vector<Window> windows;

  // Fills windows of `rows` (a positive multiple of 64) in the order of the sequences; only the
  // last piece of a sequence is no multiple of 64 rows. Pure; which rows share a window changes no
  // bit (hadal/mla_prefill.h).
  [[nodiscard]] static PrefillExpansion plan(std::span<const PrefillSequence> sequences,
                                             uint32_t rows);
};

// Device arrays of one pass.
struct PrefillBatch {
  uint32_t tokens = 0;                     // of all sequences
  std::vector<PrefillSequence> sequences;  // at least one
  PrefillExpansion expansion;
  DeviceAddress ids = 0;           // u32 [tokens]
  DeviceAddress positions = 0;     // u32 [tokens]
  DeviceAddress slots = 0;         // u32 [tokens]: cache row (page * 64 + position % 64)
  DeviceAddress block_tables = 0;  // u32: of each sequence, the pages of positions 64*i ..
  DeviceAddress pieces = 0;        // expansion.pieces; 0 will do for a single sequence
};

}  // namespace hadal::model
