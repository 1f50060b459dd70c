#include "common/speculation.h"

#include <map>

namespace hadal::examples {
namespace {

using runtime::DraftSource;

const std::map<std::string, DraftSource> kSources = {
    {"mtp", DraftSource::kMtp}, {"ngram", DraftSource::kNgram}, {"both", DraftSource::kBoth}};

}  // namespace

CLI::Option* add_speculation_options(CLI::App& app, SpeculationFlags& flags) {
  auto* speculate =
      app.add_flag("--speculate{mtp}", flags.source,
                   "draft tokens where it pays, the result is the same: --speculate or "
                   "--speculate=mtp with the checkpoint's MTP layer, =ngram with what followed the "
                   "last tokens before, =both with that where it exists")
          ->check(CLI::IsMember(kSources));
  app.add_option("--draft-depth", flags.depth, "tokens to draft at once, at most")
      ->check(CLI::Range(1u, runtime::kMaxDraftDepth))
      ->needs(speculate)
      ->capture_default_str();
  app.add_flag("--always-draft", flags.always, "also where it does not pay")->needs(speculate);
  return speculate;
}

void apply_speculation(const SpeculationFlags& flags, runtime::EngineOptions& options,
                       ModelRequest& model) {
  if (flags.source.empty()) return;
  options.speculate = true, options.draft_source = kSources.at(flags.source);
  options.draft_depth = flags.depth, options.always_draft = flags.always;
  options.max_rows *= 1 + flags.depth;
  model.load_mtp = options.draft_source != DraftSource::kNgram;
}

}  // namespace hadal::examples
