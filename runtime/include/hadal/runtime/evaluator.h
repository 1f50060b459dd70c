// Logits of every position of a text, for comparison and perplexity: the model as it prefills, or
// token by token through the decode form (teacher forcing).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/prefill_pipeline.h"

namespace hadal::runtime {

enum class EvaluationForm {
  kPrefill,  // unabsorbed attention, chunks
  kDecode,   // absorbed attention, one token a step
};

class Evaluator {
 public:
  [[nodiscard]] static Result<Evaluator> create(Device& device, model::Model& model,
                                                const KvCache& cache, PagePool& pages,
                                                const RecorderOptions& options = {});
  // Logits [ids, vocab] in position order. Errors: those of the pipelines.
  [[nodiscard]] Result<std::vector<float>> logits(std::span<const uint32_t> ids,
                                                  EvaluationForm form = EvaluationForm::kPrefill);
  struct WithMtp {
    std::vector<float> logits;      // [ids, vocab]
    std::vector<float> mtp_logits;  // [ids - 1, vocab]: row i predicts token i + 2
  };
  // Also the first MTP module's logits. Errors: kUnsupported when the model has none loaded.
  [[nodiscard]] Result<WithMtp> logits_with_mtp(std::span<const uint32_t> ids);

  // Asked behind every chunk or token; true ends the call with kCancelled.
  void set_cancelled(std::function<bool()> cancelled) { cancelled_ = std::move(cancelled); }

 private:
  Evaluator(Device& device, model::Model& model, PagePool& pages, PrefillPipeline prefill,
            DecodePipeline decode);
  [[nodiscard]] Status prefill_into(SequencePages& sequence, std::span<const uint32_t> ids,
                                    std::vector<float>& logits, const Buffer* hidden_copy);
  [[nodiscard]] Status read_chunk(const model::Pass& pass, const PrefillChunk& chunk,
                                  std::vector<float>& logits);
  Device* device_;
  model::Model* model_;
  PagePool* pages_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  std::function<bool()> cancelled_;
};

}  // namespace hadal::runtime
