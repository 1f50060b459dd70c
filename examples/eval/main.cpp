// hadal-eval MODEL_DIR: logits of every position of a text, perplexity, MTP acceptance; on Vulkan
// or on the CPU reference.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/program.h"
#include "hadal/model/reference/model.h"
#include "hadal/model/safetensors.h"
#include "hadal/runtime/evaluator.h"

namespace {

using namespace hadal;
constexpr const char* kProgram = "hadal-eval";

struct Arguments {
  examples::ModelRequest model;
  std::optional<std::string> ids, text;
  std::string dump_logits, dump_mtp_logits;
  std::string backend = "vulkan", form = "prefill";
  bool perplexity = false;
  uint32_t window = 0;
};

// Both backends behind one call: logits [n, vocab], and MTP logits [n - 1, vocab] when asked for.
class Backend {
 public:
  [[nodiscard]] static Result<Backend> create(Arguments& a, uint32_t longest, bool mtp);
  [[nodiscard]] Status run(std::span<const uint32_t> ids, bool mtp, std::vector<float>& logits,
                           std::vector<float>& mtp_logits);
  [[nodiscard]] uint32_t vocab() const { return vocab_; }

 private:
  uint32_t vocab_ = 0;
  runtime::EvaluationForm form_ = runtime::EvaluationForm::kPrefill;
  std::unique_ptr<examples::LoadedModel> loaded_;
  std::optional<runtime::Evaluator> evaluator_;
  std::optional<model::reference::ReferenceModel> reference_;
  model::reference::ReferenceOptions reference_options_;
};

Result<Backend> Backend::create(Arguments& a, uint32_t longest, bool mtp) {
  Backend b;
  if (a.backend == "reference") {
    HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(a.model.directory));
    HADAL_ASSIGN(model::Checkpoint checkpoint, model::Checkpoint::open(a.model.directory));
    b.vocab_ = config.vocab_size;
    b.reference_options_.form = a.form == "decode" ? model::reference::AttentionForm::kAbsorbed
                                                   : model::reference::AttentionForm::kUnabsorbed;
    b.reference_options_.cache_format = a.model.cache_format;
    HADAL_ASSIGN(b.reference_,
                 model::reference::ReferenceModel::create(
                     std::make_shared<const model::Checkpoint>(std::move(checkpoint)), config));
    return b;
  }
  b.form_ =
      a.form == "decode" ? runtime::EvaluationForm::kDecode : runtime::EvaluationForm::kPrefill;
  a.model.load_mtp = mtp;
  a.model.context = std::max(longest, 1u);
  a.model.max_tokens = std::min(a.model.max_tokens, a.model.context);
  a.model.max_logit_rows = a.model.max_tokens;
  HADAL_ASSIGN(examples::LoadedModel loaded, examples::load_model(a.model));
  b.loaded_ = std::make_unique<examples::LoadedModel>(std::move(loaded));
  b.vocab_ = b.loaded_->model->config().vocab_size;
  HADAL_ASSIGN(b.evaluator_, runtime::Evaluator::create(*b.loaded_->device, *b.loaded_->model,
                                                        *b.loaded_->cache, *b.loaded_->pages));
  b.evaluator_->set_cancelled([] { return examples::interrupted(); });
  return b;
}

Status Backend::run(std::span<const uint32_t> ids, bool mtp, std::vector<float>& logits,
                    std::vector<float>& mtp_logits) {
  if (examples::interrupted()) return {Errc::kCancelled, "evaluate: cancelled"};
  if (reference_) {
    HADAL_ASSIGN(auto result, reference_->forward(ids, reference_options_));
    if (mtp) {
      HADAL_ASSIGN(auto drafted, reference_->mtp_logits(ids, result.hidden, reference_options_));
      mtp_logits = std::move(drafted.data);
    }
    logits = std::move(result.logits.data);
    return {};
  }
  if (mtp) {
    HADAL_ASSIGN(auto result, evaluator_->logits_with_mtp(ids));
    logits = std::move(result.logits);
    mtp_logits = std::move(result.mtp_logits);
    return {};
  }
  HADAL_ASSIGN(logits, evaluator_->logits(ids, form_));
  return {};
}

std::span<const float> row(const std::vector<float>& logits, size_t i, uint32_t vocab) {
  return {logits.data() + i * vocab, vocab};
}

uint32_t argmax(std::span<const float> logits) {
  return uint32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// -log p(id), in double.
double negative_log_likelihood(std::span<const float> logits, uint32_t id) {
  const double peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float l : logits) sum += std::exp(double(l) - peak);
  return std::log(sum) + peak - double(logits[id]);
}

// Windows of exactly `window` tokens, each on its own, the first token of each unscored; what is
// left behind the last one is not scored. A text shorter than a window is one window.
Status print_perplexity(Backend& backend, std::span<const uint32_t> ids, uint32_t window,
                        bool mtp) {
  if (ids.size() < 2 || window < 2) {
    return {Errc::kInvalidArgument,
            fmt::format("perplexity: the text and the window must have at least 2 tokens, got {} "
                        "and {}",
                        ids.size(), window)};
  }
  double nll = 0;
  size_t scored = 0, drafts = 0, accepted = 0, in_text = 0;
  const size_t length = std::min<size_t>(window, ids.size());
  for (size_t begin = 0; begin + length <= ids.size(); begin += length) {
    const auto part = ids.subspan(begin, length);
    std::vector<float> logits, mtp_logits;
    HADAL_TRY(backend.run(part, mtp, logits, mtp_logits));
    for (size_t i = 0; i + 1 < part.size(); ++i) {
      nll += negative_log_likelihood(row(logits, i, backend.vocab()), part[i + 1]);
      ++scored;
    }
    // Row i of the MTP logits drafts token i + 2, which greedy decoding takes from row i + 1.
    for (size_t i = 0; mtp && i + 1 < part.size(); ++i) {
      accepted += argmax(row(mtp_logits, i, backend.vocab())) ==
                  argmax(row(logits, i + 1, backend.vocab()));
      ++drafts;
    }
    for (size_t i = 0; mtp && i + 2 < part.size(); ++i) {
      in_text += argmax(row(mtp_logits, i, backend.vocab())) == part[i + 2];
    }
  }
  fmt::print("tokens {}\nscored {}\nwindow {}\nperplexity {:.6f}\n", ids.size(), scored, window,
             std::exp(nll / double(scored)));
  if (drafts) {
    const size_t comparable =
        drafts - drafts / (length - 1);  // the last draft has no text beside it
    fmt::print("mtp_acceptance {:.6f}\nmtp_in_text {:.6f}\n", double(accepted) / double(drafts),
               double(in_text) / double(std::max<size_t>(comparable, 1)));
  }
  return {};
}

void print_top5(const std::vector<float>& logits, uint32_t vocab,
                const model::Tokenizer* tokenizer) {
  for (size_t i = 0; i * vocab < logits.size(); ++i) {
    const auto values = row(logits, i, vocab);
    std::vector<uint32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0u);
    const size_t count = std::min<size_t>(5, vocab);
    std::partial_sort(order.begin(), order.begin() + long(count), order.end(),
                      [&](uint32_t x, uint32_t y) {
                        return values[x] != values[y] ? values[x] > values[y] : x < y;
                      });
    fmt::print("{:>6}", i);
    for (size_t k = 0; k < count; ++k) {
      const uint32_t id = order[k];
      std::string text;
      if (tokenizer) {
        if (auto decoded = tokenizer->decode({&id, 1}, false); decoded.ok()) text = *decoded;
      }
      fmt::print("  {} '{}' {:.4f}", id, text, std::exp(-negative_log_likelihood(values, id)));
    }
    fmt::print("\n");
  }
}

Status run(Arguments& a) {
  HADAL_TRY(examples::check_writable("--dump-logits", a.dump_logits));
  HADAL_TRY(examples::check_writable("--dump-mtp-logits", a.dump_mtp_logits));
  HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(a.model.directory));
  std::optional<model::Tokenizer> tokenizer;
  std::vector<uint32_t> ids;
  std::error_code error;
  if (a.text || std::filesystem::exists(a.model.directory / "tokenizer.json", error)) {
    HADAL_ASSIGN(tokenizer, model::Tokenizer::load(a.model.directory));
    HADAL_TRY(examples::check_tokenizer(a.model.directory, *tokenizer, config));
  }
  if (a.ids) {
    HADAL_ASSIGN(ids, examples::parse_ids(*a.ids));
  } else {
    HADAL_ASSIGN(const std::string text, examples::read_text(*a.text));
    HADAL_ASSIGN(ids, tokenizer->encode(text));
  }
  HADAL_TRY(examples::check_ids(ids, config));
  const uint32_t window = a.window ? a.window : config.max_position_embeddings;
  const bool has_mtp = config.num_nextn_predict_layers > 0;
  if (!a.dump_mtp_logits.empty() && !has_mtp) {
    return {Errc::kUnsupported, "--dump-mtp-logits: the model has no MTP layer"};
  }
  const bool mtp = has_mtp && (a.perplexity ? a.form == "prefill" : !a.dump_mtp_logits.empty());
  const size_t longest = a.perplexity ? std::min<size_t>(window, ids.size()) : ids.size();
  if (longest > config.max_position_embeddings) {
    return {Errc::kInvalidArgument,
            fmt::format("the {} must fit the context of {} tokens, got {}",
                        a.perplexity ? "window" : "text", config.max_position_embeddings, longest)};
  }
  HADAL_ASSIGN(Backend backend, Backend::create(a, uint32_t(longest), mtp));
  if (a.perplexity) return print_perplexity(backend, ids, window, mtp);
  std::vector<float> logits, mtp_logits;
  HADAL_TRY(backend.run(ids, mtp, logits, mtp_logits));
  if (!a.dump_logits.empty()) {
    HADAL_TRY(examples::write_file(a.dump_logits, std::as_bytes(std::span(logits))));
  }
  if (!a.dump_mtp_logits.empty()) {
    HADAL_TRY(examples::write_file(a.dump_mtp_logits, std::as_bytes(std::span(mtp_logits))));
  }
  if (a.dump_logits.empty() && a.dump_mtp_logits.empty()) {
    print_top5(logits, backend.vocab(), tokenizer ? &*tokenizer : nullptr);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Logits, perplexity and MTP acceptance of a checkpoint over a text.", kProgram);
  app.add_option("MODEL_DIR", a.model.directory)->required();
  auto* ids = app.add_option("--ids", a.ids, "token ids, e.g. 0,5,7");
  app.add_option("--text", a.text, "text file ('-': standard input)")->excludes(ids);
  app.add_option("--dump-logits", a.dump_logits, "write float32 [T, vocab] to this file");
  app.add_option("--dump-mtp-logits", a.dump_mtp_logits, "write float32 [T-1, vocab] to this file");
  app.add_flag("--perplexity", a.perplexity,
               "perplexity; and of MTP drafts the share that greedy decoding accepts, and that the "
               "text has");
  app.add_option("--window", a.window,
                 "tokens per window of --perplexity; 0 is the model's context");
  app.add_option("--backend", a.backend)
      ->check(CLI::IsMember({"vulkan", "reference"}))
      ->capture_default_str();
  app.add_option("--form", a.form,
                 "attention: prefill (unabsorbed) or decode (absorbed, token by token)")
      ->check(CLI::IsMember({"prefill", "decode"}))
      ->capture_default_str();
  examples::add_cache_option(app, a.model.cache_format);
  app.add_option("--chunk", a.model.max_tokens, "tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_flag("--absorb-bf16", a.model.absorb_bf16, "bfloat16 copy of kv_b_proj for decode");
  app.add_option("--device", a.model.device, "index or part of the name (hadal-info lists them)");
  return examples::run_program(app, argc, argv, [&]() -> Status {
    examples::install_interrupt_handler();
    if (!a.ids && !a.text) return {Errc::kInvalidArgument, "--ids or --text: is required"};
    return run(a);
  });
}
