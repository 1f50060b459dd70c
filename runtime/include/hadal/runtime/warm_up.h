// Makes the pipelines that passes need before the first token that matters, on several threads.
//
// A pipeline is created when a pass that needs it is recorded, so this records each kind of layer
// for each number of rows once, and forgets it: nothing of it runs. Drivers compile at creation,
// some (Mesa's CPU driver) half of it, and the machine code at the first dispatch: for that half
// engine and generator then run passes of the same numbers of rows, prefill over a layer of each
// kind.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/model/pass.h"
#include "hadal/recorder.h"
#include "hadal/status.h"

namespace hadal::runtime {

struct WarmUp {
  uint32_t threads = 1;  // at once, the caller's among them; they have ended when the call returns
  // Asked before every piece, from each of the threads; true ends the call with kCancelled, and
  // what was made stays made.
  std::function<bool()> cancelled;
  // Of an engine's prefill passes, if they are known to be of about as many; 0: any number.
  uint32_t prefill_tokens = 0;
};

// The first layer of each kind: with experts, dense. What their passes need is what all layers' do.
[[nodiscard]] std::vector<uint32_t> layer_kinds(const model::ModelConfig& config);

// What one thread records at a time. Neither order nor thread matters.
using RecordPiece = std::function<Status(Recorder&)>;

// most .. 64, 40, 32 .. 2, 1: what passes of any number of rows up to `most` need is among what
// these need.
[[nodiscard]] std::vector<uint32_t> row_counts(uint32_t most);

// Attention, feed-forward of each kind of layer, embedding, norm and head of decode passes over
// each of `rows` and of prefill passes over each of `tokens` (of one
// sequence, and where asked for of several), in an order in which threads seldom
// meet: one that needs what another is making waits for it. The pieces refer to model and passes
// and record addresses that hold nothing: they are not for running, nor for
// RecorderOptions::check_hazards. Requires rows and tokens within the shapes of the passes.
[[nodiscard]] std::vector<RecordPiece> pieces_of_passes(
    const model::Model& model, const model::CacheView& cache, model::Pass& decode,
    std::span<const uint32_t> rows, model::Pass& prefill, std::span<const uint32_t> tokens,
    bool several_sequences);

// The MTP layer over as many rows and tokens, with heads; likewise. Its passes are of the forms
// that the model's last layer has, of which pieces_of_passes makes the most.
[[nodiscard]] std::vector<RecordPiece> pieces_of_mtp(
    const model::Model& model, const model::CacheView& cache, model::Pass& decode,
    std::span<const uint32_t> rows, model::Pass& prefill, std::span<const uint32_t> tokens);

// Records each piece into a recorder of its own, which is then dropped. Errors: the first of a
// piece, kCancelled.
[[nodiscard]] Status record_and_drop(Device& device, std::span<const RecordPiece> pieces,
                                     const WarmUp& options);

}  // namespace hadal::runtime
