// Many streams at once: against a server over HTTP (hadal-serve, llama-server), or the same
// requests given to an engine in this process, which is what a server could reach. Prints one JSON
// object for each number of streams.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/model/tokenizer.h"
#include "hadal/runtime/engine.h"
#include "serve/load.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

struct ServeOptions {
  std::string model_dir, url, model = "fables";
  std::vector<uint32_t> streams{1, 32};
  uint32_t requests = 4, least = 32, most = 128, rounds = 3;  // requests of each stream
  bool reconnect = false;
};

// The engine with the options of hadal-serve.
class EngineUnderLoad {
 public:
  EngineUnderLoad(const std::string& directory, uint32_t rows)
      : tokenizer_(require(model::Tokenizer::load(directory))) {
    model::ModelConfig config = require(model::load_config(directory));
    const model::Checkpoint checkpoint = require(model::Checkpoint::open(directory));
    device_ = require(Device::create());
    model::ModelOptions options;
    options.max_context = 2048, options.max_tokens = 512;
    options.max_decode_rows = options.max_logit_rows = rows;
    const uint32_t pages = rows * 4;
    cache_ = std::make_unique<runtime::KvCache>(
        require(runtime::KvCache::create(*device_, config, pages, CacheFormat::kF32)));
    pages_ = std::make_unique<runtime::PagePool>(pages);
    model::Weights weights = require(model::Weights::load(*device_, checkpoint, config, {}));
    model_ =
        require(model::Model::create(*device_, std::move(config), std::move(weights), options));
    runtime::EngineOptions engine;
    engine.max_requests = engine.max_rows = rows, engine.max_chunk = options.max_tokens;
    engine.tokenizer = &tokenizer_;  // text is made, too
    engine_ = std::make_unique<runtime::Engine>(
        require(runtime::Engine::create(*device_, *model_, *cache_, *pages_, engine)));
  }

  LoadResult run(const std::vector<LoadRequest>& load, uint32_t streams) {
    LoadResult result;
    const auto begin = Clock::now();
    size_t next = 0;
    while (result.requests < load.size()) {
      while (next < load.size() && next - result.requests < streams) add(load[next++]);
      for (const runtime::EngineToken& token : require(engine_->step())) {
        result.tokens += token.has_token;
        result.requests += token.finish != runtime::FinishReason::kNone;
      }
    }
    result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return result;
  }

 private:
  void add(const LoadRequest& load) {
    runtime::EngineRequest request;
    request.prompt = require(tokenizer_.encode(load.prompt));
    request.max_new_tokens = load.tokens;
    (void)require(engine_->add(request));
  }
  model::Tokenizer tokenizer_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<runtime::KvCache> cache_;
  std::unique_ptr<runtime::PagePool> pages_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<runtime::Engine> engine_;
};

void print(uint32_t streams, const LoadResult& r) {
  nlohmann::json json{{"streams", streams},
                      {"tokens_per_second", double(r.tokens) / r.seconds},
                      {"requests_per_second", double(r.requests) / r.seconds},
                      {"client_cpu", r.client_cpu_seconds / r.seconds}};
  for (const double p : {50.0, 95.0, 99.0}) {
    json[fmt::format("first_token_p{:.0f}", p)] = percentile(r.first_token, p);
    json[fmt::format("between_tokens_p{:.0f}", p)] = percentile(r.between_tokens, p);
  }
  fmt::print("{}\n", json.dump());
  std::fflush(stdout);
}

// A run that is not counted, then the rounds.
template <class Run>
void run_all(const ServeOptions& o, Run run) {
  for (const uint32_t streams : o.streams) {
    (void)run(make_load(2 * streams, o.least, o.most, 1), streams);
    for (uint32_t round = 0; round < o.rounds; ++round) {
      print(streams, run(make_load(o.requests * streams, o.least, o.most, 2 + round), streams));
    }
  }
}

void serve_bench(const ServeOptions& o) {
  if (o.url.empty()) {
    EngineUnderLoad engine(o.model_dir, *std::max_element(o.streams.begin(), o.streams.end()));
    return run_all(o, [&](const auto& load, uint32_t n) { return engine.run(load, n); });
  }
  const size_t colon = o.url.rfind(':');
  const HttpTarget target{o.url.substr(0, colon), o.model,
                          uint16_t(std::stoul(o.url.substr(colon + 1))), !o.reconnect};
  run_all(o, [&](const auto& load, uint32_t n) { return run_http_load(target, load, n); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  hadal::bench::ServeOptions options;
  CLI::App app("Streams at once, over HTTP or in an engine of this process.");
  app.add_option("--engine", options.model_dir, "checkpoint for an engine of this process");
  app.add_option("--server", options.url, "ADDRESS:PORT of a server")->excludes("--engine");
  app.add_option("--model", options.model, "name of the server's model")->capture_default_str();
  app.add_option("--streams", options.streams)->delimiter(',');
  app.add_option("--requests", options.requests, "of each stream")->capture_default_str();
  app.add_option("--least", options.least, "tokens of an answer")->capture_default_str();
  app.add_option("--most", options.most, "tokens of an answer")->capture_default_str();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  app.add_flag("--reconnect", options.reconnect, "a connection for each request");
  app.require_option(1, 0);
  CLI11_PARSE(app, argc, argv);
  try {
    hadal::bench::serve_bench(options);
  } catch (const std::exception& e) {
    fmt::print(stderr, "serve_bench: {}\n", e.what());
    return 1;
  }
}
