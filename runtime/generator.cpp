#include "hadal/runtime/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace hadal::runtime {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Generator::Generator(Device& device, model::Model& model, const KvCache& cache, PagePool& pages,
                     PrefillPipeline prefill, DecodePipeline decode, Sampler sampler)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      pages_(&pages),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      sampler_(std::move(sampler)) {}

Result<Generator> Generator::create(Device& device, model::Model& model, const KvCache& cache,
                                    PagePool& pages, const RecorderOptions& options) {
  HADAL_ASSIGN(PrefillPipeline prefill, PrefillPipeline::create(device, model, cache, options));
  HADAL_ASSIGN(DecodePipeline decode, DecodePipeline::create(device, model, cache, 1, options));
  HADAL_ASSIGN(Sampler sampler, Sampler::create(device, 1, model.config().vocab_size));
  return Generator(device, model, cache, pages, std::move(prefill), std::move(decode),
                   std::move(sampler));
}

Status Generator::warm_up(uint32_t prompt_tokens, const WarmUp& options) {
  const uint32_t room = std::min(model_->options().max_context, pages_->stats().free * kPageTokens);
  if (room < 2) return {};
  // The chunks of such a prompt: whole ones, and the last.
  const uint32_t most = std::min(model_->options().max_tokens, room - 1);
  std::vector<uint32_t> chunks = {std::clamp(prompt_tokens, 1u, most)};
  if (prompt_tokens > most && prompt_tokens % most) chunks.push_back(prompt_tokens % most);
  if (options.threads > 1) {  // one would make them as well while it runs
    const uint32_t rows = 1;
    const auto pieces = pieces_of_passes(*model_, cache_->view(), decode_.pass(), {&rows, 1},
                                         prefill_.pass(), chunks, /*several_sequences=*/false);
    HADAL_TRY(record_and_drop(*device_, pieces, options));
  }
  const auto draw = [&](Recorder& recorder, model::Pass& pass, uint32_t row) -> Status {
    HADAL_TRY(pass.record_head(recorder, row, 1));
    return sampler_.record(recorder, pass.logits().address(), 1);
  };
  sampler_.set_row(0, {}, 0);
  HADAL_ASSIGN(const uint64_t key, sampler_.prepare(1));
  SequencePages sequence(*pages_);
  for (const uint32_t tokens : chunks) {
    if (options.cancelled && options.cancelled()) return {Errc::kCancelled, "warm_up: cancelled"};
    const std::vector<uint32_t> ids(tokens, 0);
    const PrefillPart part{&sequence, 0, ids};
    HADAL_TRY(prefill_.run_layers({&part, 1}, layer_kinds(model_->config()), [&](Recorder& r) {
      return draw(r, prefill_.pass(), tokens - 1);
    }));
  }
  if (options.cancelled && options.cancelled()) return {Errc::kCancelled, "warm_up: cancelled"};
  const DecodeRow row{&sequence, 0, chunks[0]};
  return decode_.step({&row, 1}, key, [&](Recorder& recorder, const model::DecodeBatch&) {
    return draw(recorder, decode_.pass(), 0);
  });
}

Result<GenerateResult> Generator::generate(std::span<const uint32_t> prompt,
                                           const GenerateOptions& options) {
  const uint32_t context = model_->options().max_context, vocab = model_->config().vocab_size;
  HADAL_TRY(check_sampling(options.sampling, vocab));
  if (options.logprobs && *options.logprobs > kMaxTopLogprobs) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("generate: logprobs must be at most {}, got {}", kMaxTopLogprobs,
                              *options.logprobs));
  }
  if (prompt.empty()) {
    return Status(Errc::kInvalidArgument,
                  "generate: the prompt must have at least one token, got 0");
  }
  if (prompt.size() >= context) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("generate: the prompt must be shorter than the context of {} tokens, "
                              "got {}",
                              context, prompt.size()));
  }
  const auto is_stop = [&](uint32_t id) {
    return std::find(options.stop_ids.begin(), options.stop_ids.end(), id) !=
           options.stop_ids.end();
  };
  const auto is_cancelled = [&] { return options.cancelled && options.cancelled(); };
  GenerateResult result;
  result.prompt_tokens = uint32_t(prompt.size());
  SequencePages sequence(*pages_);
  const uint32_t limit = std::min(options.max_new_tokens, context - result.prompt_tokens);
  if (limit == 0) return result;

  const auto start = Clock::now();
  std::vector<uint32_t> ids(prompt.begin(), prompt.end());  // and generated
  RequestSampling sampling(options.sampling, options.logprobs, options.mask, prompt, vocab);
  const auto set_row = [&]() -> Result<uint64_t> {
    HADAL_TRY(sampling.set_row(sampler_, 0, ids, {}, uint32_t(ids.size()) - 1));
    return sampler_.prepare(1);
  };
  HADAL_TRY(set_row().status());
  // The last hidden row of the batch -> logits -> an id.
  const auto draw = [&](Recorder& recorder, model::Pass& pass, uint32_t row) -> Status {
    HADAL_TRY(pass.record_head(recorder, row, 1));
    return sampler_.record(recorder, pass.logits().address(), 1);
  };
  const auto draw_behind_last = [&](Recorder& recorder, const PrefillChunk& chunk) -> Status {
    return chunk.last ? draw(recorder, prefill_.pass(), chunk.tokens - 1) : Status();
  };
  const auto check_cancelled = [&](const PrefillChunk&) -> Status {
    return is_cancelled() ? Status(Errc::kCancelled, "generate: cancelled") : Status();
  };
  result.reused_tokens = sequence.reuse(prompt);
  HADAL_TRY(prefill_.run(sequence, result.reused_tokens, prompt.subspan(result.reused_tokens),
                         draw_behind_last, check_cancelled));
  sequence.publish(prompt, PageOrigin::kPrefill);
  const auto first = Clock::now();
  result.prefill_seconds = seconds(start, first);

  uint32_t id = sampler_.id(0);
  for (uint32_t position = result.prompt_tokens;; ++position) {
    result.ids.push_back(id);
    ids.push_back(id);
    if (options.logprobs) result.logprobs.push_back(*sampling.logprobs(sampler_, 0));
    if ((options.on_token && !options.on_token(id)) || is_stop(id)) break;
    if (result.ids.size() >= limit) break;
    if (is_cancelled()) return Status(Errc::kCancelled, "generate: cancelled");
    const DecodeRow row{&sequence, id, position};
    HADAL_ASSIGN(const uint64_t key, set_row());
    HADAL_TRY(decode_.step({&row, 1}, key, [&](Recorder& recorder, const model::DecodeBatch&) {
      return draw(recorder, decode_.pass(), 0);
    }));
    id = sampler_.id(0);
  }
  result.decode_seconds = seconds(first, Clock::now());
  return result;
}

}  // namespace hadal::runtime
