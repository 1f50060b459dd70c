// Generates from one prompt: prefill, then decode token by token. The smallest user of the
// pipelines. A prompt that begins like an earlier one takes its whole pages over; the tokens are
// the same, because a row's bits do not depend on who else was computed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/request_sampling.h"
#include "hadal/runtime/warm_up.h"

namespace hadal::runtime {

struct GenerateOptions {
  uint32_t max_new_tokens = 200;  // fewer when the context ends
  SamplingOptions sampling;
  std::optional<uint32_t> logprobs;  // as EngineRequest's
  TokenMask mask;                    // which tokens may follow
  std::vector<uint32_t> stop_ids;    // generation ends behind one of these (it is reported too)
  std::function<bool(uint32_t id)> on_token;  // each token as it comes; false stops
  std::function<bool()> cancelled;            // asked between steps
};

struct GenerateResult {
  std::vector<uint32_t> ids;            // generated, the stop id included
  std::vector<TokenLogprobs> logprobs;  // of each, where asked for
  uint32_t prompt_tokens = 0;
  uint32_t reused_tokens = 0;    // of them, taken over from an earlier prompt's pages
  double prefill_seconds = 0.0;  // until the first token is known
  double decode_seconds = 0.0;   // the rest
};

class Generator {
 public:
  // The model needs max_logit_rows >= 1. `options` reach the recorders of both pipelines.
  [[nodiscard]] static Result<Generator> create(Device& device, model::Model& model,
                                                const KvCache& cache, PagePool& pages,
                                                const RecorderOptions& options = {});
  // Errors: kInvalidArgument (empty prompt, prompt as long as the context, sampling out of range,
  // id outside the vocabulary, a mask that throws or allows no token), kCancelled, those of the
  // device.
  [[nodiscard]] Result<GenerateResult> generate(std::span<const uint32_t> prompt,
                                                const GenerateOptions& options);
  // Runs the chunks of a prompt of `prompt_tokens` through a layer of each kind, and one decode
  // step, and forgets them, so that every shader that such a prompt needs is compiled before the
  // first token that matters. Waits. Pipelines are made on options.threads before. Errors:
  // kCancelled, those of the device.
  [[nodiscard]] Status warm_up(uint32_t prompt_tokens, const WarmUp& options = {});
  [[nodiscard]] PrefillPipeline& prefill() { return prefill_; }
  [[nodiscard]] DecodePipeline& decode() { return decode_; }

 private:
  Generator(Device& device, model::Model& model, const KvCache& cache, PagePool& pages,
            PrefillPipeline prefill, DecodePipeline decode, Sampler sampler);
  Device* device_;
  model::Model* model_;
  const KvCache* cache_;
  PagePool* pages_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  Sampler sampler_;
};

}  // namespace hadal::runtime
