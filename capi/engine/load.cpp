// From options to an engine: what was asked for, what fits, then loading.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "engine.h"
#include "hadal/model/generation_config.h"
#include "hadal/model/safetensors.h"
#include "hadal/model/weights.h"
#include "hadal/runtime/memory_plan.h"
#include "hadal/types.h"

using namespace hadal;        // NOLINT: entry points of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {

constexpr uint32_t kKnownFlags = HADAL_ENGINE_SPECULATE | HADAL_ENGINE_ALWAYS_DRAFT |
                                 HADAL_ENGINE_ALWAYS_SWAP | HADAL_ENGINE_ABSORB_BF16 |
                                 HADAL_ENGINE_NO_TOKENIZER;
constexpr uint32_t kDefaultRequests = 8, kDefaultChunk = 512;
constexpr uint32_t kMostRows = 65536, kMostChunk = 1u << 20;  // sizes stay far inside 32 bits

Status refuse(std::string_view text) {
  return invalid(kEngine, text);
}

// What options come to on a device, before anything is allocated.
struct Prepared {
  hadal_engine_options options{};
  model::ModelConfig config;
  model::GenerationConfig generation;
  std::optional<model::Checkpoint> checkpoint;
  std::unique_ptr<Device> device;
  model::ModelOptions model;
  model::LoadOptions load;
  runtime::EngineOptions engine;
  CacheFormat cache_format{};
  runtime::MemoryPlan memory;
  uint64_t wanted_pages = 0;
  uint32_t pages = 0;  // 0: they do not fit
};

Status check_device_options(const hadal_engine_options& o) {
  if (!o.context) {
    if (o.queue) return refuse("queue must be null without context");
    if (o.lock_queue || o.unlock_queue) return refuse("lock_queue must be null without context");
    return {};
  }
  if (!o.queue) return refuse("queue must not be null with context");
  if (!o.lock_queue != !o.unlock_queue) {
    return refuse("lock_queue and unlock_queue must both be given, or none");
  }
  if (o.device) return refuse("device must be null with context");
  if (o.cache_dir) return refuse("cache_dir must be null with context, which has pipeline_cache");
  if (o.log) return refuse("log must be null with context, which has its own");
  return {};
}

Result<std::unique_ptr<Device>> open_device(const hadal_engine_options& o) {
  DeviceOptions options;
  if (!o.context) {
    if (o.device) options.select = o.device;
    if (o.cache_dir) options.cache_dir = o.cache_dir;
    options.log = log_function(o.log, o.log_user);
    return Device::create(options);
  }
  hadal_context_info info{};
  HADAL_TRY(read_struct(kEngine, "context", o.context, info));
  BorrowedDevice handles = borrowed_device(info);
  handles.queue = o.queue;
  if (o.lock_queue) {
    handles.lock_queue = [lock = o.lock_queue, user = o.queue_user]() -> Status {
      try {
        lock(user);
        return {};
      } catch (...) {
        return {Errc::kInternal, "engine: lock_queue must not throw"};
      }
    };
    handles.unlock_queue = [unlock = o.unlock_queue, user = o.queue_user] {
      try {
        unlock(user);
      } catch (...) {  // NOLINT: the submission is done, and nobody is left to tell
      }
    };
  }
  options.log = log_function(info.log, info.log_user);
  return Device::borrow(handles, options);
}

// Rows, requests and drafts: what the options leave open follows from the others.
Status prepare_engine(const hadal_engine_options& o, runtime::EngineOptions& e) {
  if (o.draft_depth > runtime::kMaxDraftDepth) {
    return refuse(fmt::format("draft_depth must be at most {}, got {}", runtime::kMaxDraftDepth,
                              o.draft_depth));
  }
  for (const auto& [name, value, most] : {std::tuple{"max_requests", o.max_requests, kMostRows},
                                          std::tuple{"max_rows", o.max_rows, kMostRows},
                                          std::tuple{"max_chunk", o.max_chunk, kMostChunk}}) {
    if (value <= most) continue;
    return refuse(fmt::format("{} must be at most {}, got {}", name, most, value));
  }
  if (!(o.step_seconds >= 0.0 && o.step_seconds <= 1e6)) {
    return refuse(fmt::format("step_seconds must be 0 to 1e6, got {}", o.step_seconds));
  }
  HADAL_ASSIGN(e.draft_source,
               enumerator<runtime::DraftSource>(kEngine, "draft_source", o.draft_source, 3));
  e.speculate = o.flags & HADAL_ENGINE_SPECULATE;
  e.always_draft = o.flags & HADAL_ENGINE_ALWAYS_DRAFT;
  e.always_swap = o.flags & HADAL_ENGINE_ALWAYS_SWAP;
  e.swap_bytes = o.swap_bytes;
  e.draft_depth = std::max(o.draft_depth, 1u);
  const uint32_t rows_of_request = e.speculate ? 1 + e.draft_depth : 1;
  e.max_requests = o.max_requests ? o.max_requests : o.max_rows ? o.max_rows : kDefaultRequests;
  e.max_rows = o.max_rows ? o.max_rows : e.max_requests * rows_of_request;
  if (e.max_requests > e.max_rows) {
    return refuse(fmt::format("max_requests must be at most max_rows, got {} > {}", e.max_requests,
                              e.max_rows));
  }
  if (o.step_seconds > 0.0) e.step_seconds = o.step_seconds;
  if (o.aging_steps) e.aging_steps = o.aging_steps;
  return {};
}

Status prepare_model(Prepared& p) {
  const hadal_engine_options& o = p.options;
  if (o.max_context > p.config.max_position_embeddings) {
    return refuse(fmt::format("max_context must be at most the model's {}, got {}",
                              p.config.max_position_embeddings, o.max_context));
  }
  p.model.max_context = o.max_context ? o.max_context : p.config.max_position_embeddings;
  p.model.max_decode_rows = p.model.max_logit_rows = p.engine.max_rows;
  p.model.max_tokens = std::max(
      std::min(o.max_chunk ? o.max_chunk : kDefaultChunk, p.model.max_context), p.engine.max_rows);
  p.load.absorb_bf16 = o.flags & HADAL_ENGINE_ABSORB_BF16;
  p.load.load_mtp = p.engine.speculate && p.engine.draft_source != runtime::DraftSource::kNgram;
  p.load.read_ahead_bytes = o.read_ahead_bytes;
  if (p.load.load_mtp && p.config.num_nextn_predict_layers == 0) {
    return {Errc::kUnsupported, "engine: draft_source needs an MTP layer, got a model without"};
  }
  return {};
}

// A context that was not asked for shrinks to what fits; so does a cache.
Status prepare_cache(Prepared& p, uint64_t weights_bytes) {
  const hadal_engine_options& o = p.options;
  if (o.cache_pages && o.cache_bytes) return refuse("cache_bytes must be 0 with cache_pages");
  const auto plan = [&] {
    p.memory =
        runtime::plan_memory(p.config, weights_bytes, p.model, p.cache_format, p.device->caps());
  };
  plan();
  if (p.memory.sequences() == 0 && o.max_context == 0 &&
      p.memory.longest_context >= p.model.max_tokens) {
    p.model.max_context = p.memory.longest_context;
    plan();
  }
  uint64_t pages = o.cache_pages;
  if (o.cache_bytes) {
    pages = o.cache_bytes / p.memory.page_bytes;
    if (pages == 0) {
      return refuse(fmt::format("cache_bytes must be at least a page's {}, got {}",
                                p.memory.page_bytes, o.cache_bytes));
    }
  } else if (!pages) {
    const uint64_t fixed = p.memory.weights_bytes + p.memory.workspace_bytes;
    const uint64_t half = p.memory.free_bytes / 2;
    const uint64_t one = p.memory.pages_per_sequence();
    pages = std::min<uint64_t>(one * p.engine.max_requests, p.memory.most_pages);
    pages = std::max(std::min(pages, half > fixed ? (half - fixed) / p.memory.page_bytes : 0), one);
  }
  p.wanted_pages = pages;
  p.pages = pages <= p.memory.most_pages ? uint32_t(pages) : 0;
  return {};
}

Result<Prepared> prepare(const hadal_engine_options* options) {
  Prepared p;
  HADAL_TRY(read_struct(kEngine, "options", options, p.options));
  const hadal_engine_options& o = p.options;
  if (!o.model_dir) return refuse("model_dir must not be null");
  HADAL_TRY(check_flags(kEngine, o.flags, kKnownFlags));
  HADAL_TRY(check_device_options(o));
  HADAL_ASSIGN(p.cache_format, enumerator<CacheFormat>(kEngine, "cache_format", o.cache_format, 3));
  HADAL_TRY(prepare_engine(o, p.engine));
  HADAL_ASSIGN(p.config, model::load_config(o.model_dir));
  HADAL_ASSIGN(p.generation, model::load_generation_config(o.model_dir, p.config));
  HADAL_TRY(prepare_model(p));
  HADAL_ASSIGN(p.checkpoint, model::Checkpoint::open(o.model_dir));
  HADAL_ASSIGN(const uint64_t weights_bytes,
               model::weights_device_bytes(*p.checkpoint, p.config, p.load));
  HADAL_ASSIGN(p.device, open_device(o));
  HADAL_TRY(prepare_cache(p, weights_bytes));
  return p;
}

Result<std::unique_ptr<hadal_tokenizer>> read_tokenizer(const Prepared& p) {
  const std::filesystem::path file = std::filesystem::path(p.options.model_dir) / "tokenizer.json";
  std::error_code error;
  const bool wanted = !(p.options.flags & HADAL_ENGINE_NO_TOKENIZER);
  if (!wanted || !std::filesystem::exists(file, error)) return std::unique_ptr<hadal_tokenizer>();
  HADAL_ASSIGN(auto tokenizer, load_tokenizer(p.options.model_dir));
  const uint32_t ids = tokenizer->tokenizer.vocab_size();
  if (ids <= p.config.vocab_size) return tokenizer;
  return Status(Errc::kMalformed,
                fmt::format("{}: ids must be below config.json's vocab_size of {}, got {}",
                            file.string(), p.config.vocab_size, ids - 1));
}

Result<model::Weights> load_weights(Prepared& p) {
  bool threw = false;
  if (const hadal_progress_fn progress = p.options.progress) {
    p.load.progress = [&threw, progress, user = p.options.progress_user](uint64_t done,
                                                                         uint64_t total) {
      try {
        return progress(user, done, total) == 0;
      } catch (...) {
        threw = true;
        return false;
      }
    };
  }
  Result<model::Weights> weights = model::Weights::load(*p.device, *p.checkpoint, p.config, p.load);
  if (threw) return refuse("progress must not throw");
  return weights;
}

Status load(const hadal_engine_options* options, hadal_engine& made) {
  HADAL_ASSIGN(Prepared p, prepare(options));
  if (p.pages == 0) {  // says the numbers
    HADAL_TRY(p.memory.check(uint32_t(std::min<uint64_t>(p.wanted_pages, UINT32_MAX))));
    return refuse(
        fmt::format("cache_pages must be at most {}, got {}", p.memory.most_pages, p.wanted_pages));
  }
  HADAL_TRY(model::check_supported(p.config, p.model, p.device->caps()));
  HADAL_ASSIGN(made.tokenizer, read_tokenizer(p));
  HADAL_ASSIGN(model::Weights weights, load_weights(p));
  HADAL_ASSIGN(runtime::KvCache cache,
               runtime::KvCache::create(*p.device, p.config, p.pages, p.cache_format));
  made.device = std::move(p.device);
  made.cache = std::make_unique<runtime::KvCache>(std::move(cache));
  made.pages = std::make_unique<runtime::PagePool>(p.pages);
  HADAL_ASSIGN(made.model, model::Model::create(*made.device, std::move(p.config),
                                                std::move(weights), p.model));
  p.engine.max_chunk = p.model.max_tokens;
  if (made.tokenizer) p.engine.tokenizer = &made.tokenizer->tokenizer;
  HADAL_ASSIGN(made.engine, runtime::Engine::create(*made.device, *made.model, *made.cache,
                                                    *made.pages, p.engine));
  made.end_ids = model::end_ids(made.model->config(), p.generation);
  made.max_requests = p.engine.max_requests, made.max_rows = p.engine.max_rows;
  const Caps& caps = made.device->caps();
  made.driver = fmt::format("{}, {}", caps.driver_name, caps.driver_info);
  return {};
}

void copy_text(const std::string& text, char (&out)[256]) {
  const size_t length = std::min(text.size(), sizeof(out) - 1);
  std::memcpy(out, text.data(), length);
  out[length] = 0;
}

}  // namespace

hadal_status hadal_engine_device_count(uint32_t* count, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!count) return refuse("count must not be null");
    HADAL_ASSIGN(const std::vector<Caps> devices, list_devices());
    *count = uint32_t(devices.size());
    return {};
  });
}

hadal_status hadal_engine_device_describe(uint32_t index, hadal_engine_device* device,
                                          hadal_error* error) {
  return guarded(error, [&]() -> Status {
    HADAL_ASSIGN(const std::vector<Caps> devices, list_devices());
    if (index >= devices.size()) {
      return refuse(fmt::format("index must be below {}, got {}", devices.size(), index));
    }
    const Caps& caps = devices[index];
    hadal_engine_device known{};
    copy_text(caps.device_name, known.name);
    copy_text(fmt::format("{}, {}", caps.driver_name, caps.driver_info), known.driver);
    copy_text(missing_requirement(caps), known.missing);
    known.is_cpu = caps.is_cpu, known.is_discrete = caps.is_discrete;
    known.memory_bytes = caps.device_heap_bytes, known.free_bytes = caps.device_heap_free_bytes;
    known.subgroup_size = caps.subgroup_size;
    return write_struct(kEngine, "device", known, device);
  });
}

hadal_status hadal_engine_plan(const hadal_engine_options* options, hadal_engine_memory* memory,
                               hadal_error* error) {
  return guarded(error, [&]() -> Status {
    HADAL_ASSIGN(const Prepared p, prepare(options));
    const runtime::MemoryPlan& m = p.memory;
    const hadal_engine_memory known{sizeof(known),        m.free_bytes,      m.largest_buffer_bytes,
                                    m.weights_bytes,      m.workspace_bytes, m.page_bytes,
                                    runtime::kPageTokens, m.context,         p.pages,
                                    m.most_pages,         m.longest_context};
    return write_struct(kEngine, "memory", known, memory);
  });
}

hadal_status hadal_engine_load(const hadal_engine_options* options, hadal_engine** engine,
                               hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!engine) return refuse("engine must not be null");
    auto made = std::make_unique<hadal_engine>();
    HADAL_TRY(load(options, *made));
    *engine = made.release();
    return {};
  });
}

void hadal_engine_destroy(hadal_engine* engine) {
  delete engine;
}
