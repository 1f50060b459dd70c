#include "fuzz/engine_world.h"

#include <algorithm>
#include <filesystem>

#include "fuzz/abi.h"
#include "fuzz/folder.h"

namespace hadal::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFables = HADAL_SOURCE_DIR "/examples/models/fables";

// Steps `engine` `most` times at most, until nothing is left.
void run(hadal_engine* engine, int most) {
  hadal_error error = HADAL_ERROR_INIT;
  for (int i = 0; i < most && !hadal_engine_idle(engine); ++i) {
    const hadal_engine_token* const* tokens = nullptr;
    size_t count = 0;
    HOST_OK(hadal_engine_step(engine, &tokens, &count, &error));
  }
}

std::vector<unsigned char> exported(hadal_engine* engine, hadal_request_id id) {
  hadal_error error = HADAL_ERROR_INIT;
  const void* bytes = nullptr;
  size_t count = 0;
  HOST_OK(hadal_engine_export(engine, id, &bytes, &count, &error));
  const auto* begin = static_cast<const unsigned char*>(bytes);
  return {begin, begin + count};
}

}  // namespace

EngineWorld::EngineWorld() {
  VkPhysicalDevice devices[8];
  if (!host_instance_create(&instance_)) return;
  if (host_physical_devices(&instance_, devices) == 0) return;
  host_device_create(&instance_, devices[0], &device_);
  context_ = host_context_info(&device_);
}

EngineWorld::~EngineWorld() {
  renew();
  for (hadal_tokenizer* tokenizer : tokenizers_) hadal_tokenizer_destroy(tokenizer);
  if (has_device()) host_device_destroy(&device_);
  if (instance_.instance) host_instance_destroy(&instance_);
}

hadal_engine_options EngineWorld::options(uint32_t kind) const {
  auto o = sized<hadal_engine_options>();
  o.model_dir = kFables;
  o.context = &context_, o.queue = device_.queue;
  o.max_context = kContext, o.max_requests = 6, o.max_chunk = 64, o.cache_pages = 6;
  if (kind == 1) {
    o.flags = HADAL_ENGINE_SPECULATE | HADAL_ENGINE_ALWAYS_DRAFT | HADAL_ENGINE_ALWAYS_SWAP;
    o.draft_source = HADAL_DRAFT_BOTH, o.draft_depth = 2, o.swap_bytes = 1 << 20;
  }
  return o;
}

hadal_engine* EngineWorld::engine(uint32_t kind) {
  hadal_error error = HADAL_ERROR_INIT;
  const hadal_engine_options o = options(kind);
  if (!engines_[kind]) HOST_OK(hadal_engine_load(&o, &engines_[kind], &error));
  return engines_[kind];
}

void EngineWorld::renew() {
  for (hadal_engine*& engine : engines_) {
    hadal_engine_destroy(engine);
    engine = nullptr;
  }
}

const std::vector<unsigned char>& EngineWorld::state(uint32_t index) {
  if (!states_[index].empty()) return states_[index];
  hadal_error error = HADAL_ERROR_INIT;
  hadal_engine* made = engine(index);
  auto request = sized<hadal_engine_request>();
  const hadal_logit_bias bias[] = {{4, 1.0f}, {9, -2.0f}};
  const char* const stop[] = {"zzz"};
  const uint32_t stop_ids[] = {2000, 2001};
  request.max_new_tokens = 5;
  request.logit_bias = bias, request.logit_bias_count = std::size(bias);
  request.stop = stop, request.stop_count = std::size(stop);
  request.stop_ids = stop_ids, request.stop_ids_count = std::size(stop_ids);
  request.flags = HADAL_REQUEST_IGNORE_EOS;
  std::vector<uint32_t> prompt(index == 0 ? 20 : 70);  // one page; two
  for (uint32_t i = 0; i < prompt.size(); ++i) prompt[i] = 3 + 7 * i;
  request.prompt = prompt.data(), request.prompt_tokens = prompt.size();
  if (index == 0) {
    request.flags |= HADAL_REQUEST_PREFILL_ONLY;
  } else {
    request.flags |= HADAL_REQUEST_LOGPROBS;
    request.top_logprobs = 3, request.max_new_tokens = 100;
  }
  hadal_request_id id = 0;
  HOST_OK(hadal_engine_add(made, &request, &id, &error));
  run(made, index == 0 ? 100 : 6);
  states_[index] = exported(made, id);
  HOST_OK(hadal_engine_cancel(made, id, &error));
  return states_[index];
}

const std::vector<hadal_tokenizer*>& EngineWorld::tokenizers() {
  if (!tokenizers_.empty()) return tokenizers_;
  const Folder folder;
  std::vector<fs::path> templates;
  for (const auto& entry : fs::directory_iterator(HADAL_SOURCE_DIR "/tests/chat_templates")) {
    templates.push_back(entry.path());
  }
  std::sort(templates.begin(), templates.end());
  std::vector<fs::path> dirs = {kFables};
  for (const fs::path& source : templates) {
    const fs::path& dir = dirs.emplace_back(folder.path() / source.stem());
    fs::create_directories(dir);
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
      fs::copy_file(fs::path(kFables) / file, dir / file, fs::copy_options::overwrite_existing);
    }
    fs::copy_file(source, dir / "chat_template.jinja", fs::copy_options::overwrite_existing);
  }
  for (const fs::path& dir : dirs) {
    hadal_error error = HADAL_ERROR_INIT;
    hadal_tokenizer* made = nullptr;
    HOST_OK(hadal_tokenizer_load(dir.c_str(), &made, &error));
    tokenizers_.push_back(made);
  }
  return tokenizers_;
}

}  // namespace hadal::fuzz
