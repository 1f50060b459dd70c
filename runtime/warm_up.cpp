#include "hadal/runtime/warm_up.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/recordings.h"
#include "hadal/types.h"

namespace hadal::runtime {
namespace {

template <class Batch>
RecordPiece attention_piece(const model::Model& model, model::Pass& pass,
                            const model::CacheView& cache, const Batch& batch) {
  return [&model, &pass, cache, batch](Recorder& recorder) {
    return pass.record_attention(recorder, model.weights().layers[0], 0, batch, cache);
  };
}

template <class Batch>
std::vector<RecordPiece> pieces_of(const model::Model& model, model::Pass& pass,
                                   const model::CacheView& cache, const Batch& batch) {
  std::vector<RecordPiece> pieces = {attention_piece(model, pass, cache, batch)};
  for (const uint32_t layer : layer_kinds(model.config())) {
    pieces.push_back([&model, &pass, tokens = batch.tokens, layer](Recorder& recorder) {
      return pass.record_feed_forward(recorder, model.weights().layers[layer], tokens);
    });
  }
  pieces.push_back([&pass, batch](Recorder& recorder) -> Status {
    const uint32_t head_rows = std::min(batch.tokens, pass.shape().logit_rows);
    HADAL_TRY(pass.record_head(recorder, 0, head_rows));
    HADAL_TRY(pass.record_final_norm(recorder, batch.tokens));
    return pass.record_embedding(recorder, batch.ids, batch.tokens);
  });
  return pieces;
}

// Addresses that hold nothing.
model::PrefillBatch prefill_batch(const model::Model& model, const model::Pass& pass,
                                  uint32_t tokens) {
  model::PrefillBatch batch;
  batch.tokens = tokens;
  batch.sequences = {{0, tokens, 0, ceil_div(tokens, kPageTokens)}};
  batch.expansion = model::PrefillExpansion::plan(batch.sequences, model.options().expansion_rows);
  batch.ids = batch.positions = batch.slots = batch.block_tables = batch.pieces =
      pass.logits().address();
  return batch;
}

model::DecodeBatch decode_batch(const model::Model& model, const model::Pass& pass,
                                const model::CacheView& cache, uint32_t rows) {
  model::DecodeBatch batch;
  batch.tokens = rows;
  batch.max_kv_len = std::min(model.options().max_context, cache.pages * kPageTokens);
  batch.ids = batch.positions = batch.slots = batch.kv_lens = batch.block_tables =
      pass.logits().address();
  batch.table_stride = ceil_div(model.options().max_context, kPageTokens);
  return batch;
}

std::vector<RecordPiece> prefill_pieces(const model::Model& model, model::Pass& pass,
                                        const model::CacheView& cache, uint32_t tokens,
                                        bool several_sequences) {
  model::PrefillBatch batch = prefill_batch(model, pass, tokens);
  std::vector<RecordPiece> pieces = pieces_of(model, pass, cache, batch);
  if (tokens < 2 || !several_sequences) return pieces;
  // Attention over several sequences is a form of its own.
  batch.sequences = {{0, 1, 0, 1}, {0, tokens - 1, 1, ceil_div(tokens - 1, kPageTokens)}};
  batch.expansion = model::PrefillExpansion::plan(batch.sequences, model.options().expansion_rows);
  pieces.push_back(attention_piece(model, pass, cache, batch));
  return pieces;
}

std::vector<RecordPiece> decode_pieces(const model::Model& model, model::Pass& pass,
                                       const model::CacheView& cache, uint32_t rows) {
  model::DecodeBatch batch = decode_batch(model, pass, cache, rows);
  std::vector<RecordPiece> pieces = pieces_of(model, pass, cache, batch);
  if (batch.max_kv_len > kShortKvLen) {
    batch.max_kv_len = kShortKvLen;
    pieces.push_back(attention_piece(model, pass, cache, batch));
  }
  return pieces;
}

template <class Batch>
RecordPiece mtp_piece(model::Pass& pass, const model::CacheView& cache, const Batch& batch) {
  return [&pass, cache, batch](Recorder& recorder) -> Status {
    HADAL_TRY(pass.record_mtp(recorder, 0, batch, cache, pass.hidden()));
    return pass.record_mtp_head(recorder, 0, 0, std::min(batch.tokens, pass.shape().logit_rows));
  };
}

Status record_one(Device& device, const RecordPiece& piece) {
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device));
  HADAL_TRY(piece(recorder));
  return recorder.end();
}

}  // namespace

std::vector<uint32_t> layer_kinds(const model::ModelConfig& config) {
  std::vector<uint32_t> layers;
  for (const bool moe : {true, false}) {
    uint32_t layer = 0;
    while (layer < config.num_hidden_layers && config.is_moe_layer(layer) != moe) ++layer;
    if (layer < config.num_hidden_layers) layers.push_back(layer);
  }
  return layers;
}

std::vector<uint32_t> row_counts(uint32_t most) {
  constexpr uint32_t kOwnTile = 40;  // of fp8_gemm, for 33 to 40 rows
  std::vector<uint32_t> counts;
  for (uint32_t rows = 1; rows < most; rows *= 2) {
    counts.push_back(rows);
    if (rows < kOwnTile && kOwnTile < std::min(2 * rows, most)) counts.push_back(kOwnTile);
  }
  counts.push_back(most);
  std::reverse(counts.begin(), counts.end());
  return counts;
}

std::vector<RecordPiece> pieces_of_passes(const model::Model& model, const model::CacheView& cache,
                                          model::Pass& decode, std::span<const uint32_t> rows,
                                          model::Pass& prefill, std::span<const uint32_t> tokens,
                                          bool several_sequences) {
  std::vector<RecordPiece> all;
  for (size_t i = 0; i < std::max(rows.size(), tokens.size()); ++i) {
    std::vector<RecordPiece> front, back;
    if (i < rows.size()) front = decode_pieces(model, decode, cache, rows[i]);
    if (i < tokens.size())
      back = prefill_pieces(model, prefill, cache, tokens[i], several_sequences);
    // One thread begins with decode's attention, the next with the back of a prefill layer.
    if (!front.empty()) all.push_back(front[0]);
    all.insert(all.end(), back.rbegin(), back.rend());
    if (!front.empty()) all.insert(all.end(), front.begin() + 1, front.end());
  }
  return all;
}

std::vector<RecordPiece> pieces_of_mtp(const model::Model& model, const model::CacheView& cache,
                                       model::Pass& decode, std::span<const uint32_t> rows,
                                       model::Pass& prefill, std::span<const uint32_t> tokens) {
  std::vector<RecordPiece> all;
  for (const uint32_t count : rows) {
    all.push_back(mtp_piece(decode, cache, decode_batch(model, decode, cache, count)));
  }
  for (const uint32_t count : tokens) {
    all.push_back(mtp_piece(prefill, cache, prefill_batch(model, prefill, count)));
  }
  return all;
}

Status record_and_drop(Device& device, std::span<const RecordPiece> pieces, const WarmUp& options) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status first;
  const auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      Status status = options.cancelled && options.cancelled()
                          ? Status(Errc::kCancelled, "warm_up: cancelled")
                          : record_one(device, pieces[i]);
      if (status.ok()) continue;
      next = pieces.size();
      std::scoped_lock lock(mutex);
      if (first.ok()) first = std::move(status);
    }
  };
  {
    std::vector<std::jthread> others;
    const size_t threads = std::min<size_t>(std::max(options.threads, 1u), pieces.size());
    try {
      while (others.size() + 1 < threads) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads here: those there are will do
    }
    work();
  }
  return first;
}

}  // namespace hadal::runtime
