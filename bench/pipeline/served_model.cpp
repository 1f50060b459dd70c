#include "pipeline/served_model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "support/bench.h"

namespace hadal::bench {

uint32_t PipelineOptions::context() const {
  uint32_t most = kShortPrompt + generated + 1;
  for (const uint32_t prompt : prompts) most = std::max(most, prompt + 1);
  if (reuse_prompt) most = std::max(most, reuse_prompt + 1);
  if (text_tokens) most = std::max(most, 64 + text_tokens);  // no text of the case has 64 tokens
  return most;
}

uint32_t PipelineOptions::rows() const {
  const uint32_t most = *std::max_element(sequences.begin(), sequences.end());
  return std::max(most, text_tokens ? 8u : 1u);  // a sequence's token, and drafts behind it
}

ServedEngine::ServedEngine(Device& device, model::Model& model, uint32_t pages,
                           const runtime::EngineOptions& options)
    : device_(device),
      vocab_(model.config().vocab_size),
      cache_(std::make_unique<runtime::KvCache>(
          require(runtime::KvCache::create(device, model.config(), pages, CacheFormat::kF32)))),
      pages_(std::make_unique<runtime::PagePool>(pages)),
      engine_(std::make_unique<runtime::Engine>(
          require(runtime::Engine::create(device, model, *cache_, *pages_, options)))) {}

ServedEngine::Run ServedEngine::run(const std::vector<std::vector<uint32_t>>& prompts,
                                    uint32_t new_tokens) {
  for (const std::vector<uint32_t>& prompt : prompts) {
    runtime::EngineRequest request;
    request.prompt = prompt, request.max_new_tokens = new_tokens;
    (void)require(engine_->add(request));
  }
  Run run;
  std::set<runtime::RequestId> begun;
  auto start = Clock::now();
  while (!engine_->idle()) {
    const bool decoding = begun.size() == prompts.size();
    const std::vector<runtime::EngineToken> tokens = require(engine_->step());
    for (const runtime::EngineToken& token : tokens) {
      ids_in_range_ = ids_in_range_ && token.has_token && token.id < vocab_;
      if (!decoding) begun.insert(token.request);
    }
    if (decoding) {
      ++run.decode_steps, run.decoded_tokens += tokens.size();
    } else if (begun.size() == prompts.size()) {
      run.first_token_seconds = seconds_since(start);
      start = Clock::now();
    }
  }
  run.decode_seconds = seconds_since(start);
  decoded_ = decoded_ || run.decode_steps > 0;
  return run;
}

bool ServedEngine::is_right() {
  return ids_in_range_ && logits_are_finite(engine_->prefill().pass()) &&
         (!decoded_ || logits_are_finite(engine_->decode().pass()));
}

bool ServedEngine::logits_are_finite(const model::Pass& pass) {
  std::vector<float> logits(vocab_);
  require(device_.download(pass.logits(), 0, std::as_writable_bytes(std::span(logits))));
  return std::all_of(logits.begin(), logits.end(),
                     [](float value) { return std::isfinite(value); });
}

ServedModel::ServedModel(const PipelineOptions& options) : options_(options) {
  DeviceOptions device_options;
  device_options.select = options.device;
  device_options.cache_dir = options.cache_dir;
  model::ModelConfig config = require(model::load_config(options.directory));
  const model::Checkpoint checkpoint = require(model::Checkpoint::open(options.directory));
  device_ = require(Device::create(device_options));
  model::ModelOptions model_options;
  model_options.max_context = options.context();
  model_options.max_tokens = std::max(std::min(options.chunk, options.context()), options.rows());
  model_options.max_decode_rows = model_options.max_logit_rows = options.rows();
  const auto start = Clock::now();
  model::Weights weights = require(model::Weights::load(*device_, checkpoint, config, {}));
  model_ =
      require(model::Model::create(*device_, std::move(config), std::move(weights), model_options));
  load_seconds_ = seconds_since(start);
}

ServedEngine ServedModel::engine(uint32_t sequences, runtime::EngineOptions options) {
  // A page more for each sequence, so that the engine never runs short.
  const uint32_t pages =
      sequences == 1
          ? ceil_div(options_.context(), runtime::kPageTokens) + 1
          : sequences * (ceil_div(kShortPrompt + options_.generated + 1, runtime::kPageTokens) + 1);
  options.max_rows = options.speculate ? model_->options().max_decode_rows : sequences;
  options.max_chunk = model_->options().max_tokens;
  return {*device_, *model_, pages, options};
}

std::vector<uint32_t> ServedModel::random_ids(uint32_t count) {
  std::vector<uint32_t> ids(count);
  for (uint32_t& id : ids) id = uint32_t(random_() % model_->config().vocab_size);
  return ids;
}

}  // namespace hadal::bench
