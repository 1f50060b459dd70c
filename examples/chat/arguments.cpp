#include "chat/arguments.h"

#include "common/sampling.h"

namespace hadal::chat {
namespace {

void add_conversation_flags(CLI::App& app, Arguments& a) {
  app.add_option("-p,--prompt", a.prompt, "answer this and exit");
  auto* system = app.add_option("--system", a.system, "system message");
  app.add_option("--system-file", a.system_file, "system message from a file")->excludes(system);
  app.add_option("--chat-template", a.chat_template,
                 "a Jinja file instead of the checkpoint's template");
  app.add_flag("--think{on},--no-think{off}", a.think,
               "whether the model reasons before it answers, where its template can switch that")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_option("-n,--max-tokens", a.settings.max_tokens,
                 "of an answer; 0: to the context's end (200 where there is no chat template)")
      ->default_str("the checkpoint's, or 0");
  app.add_option("--stop", a.stop, "end an answer in front of this string; repeatable")
      ->type_name("STRING")
      ->allow_extra_args(false);
}

void add_engine_flags(CLI::App& app, Arguments& a) {
  app.add_option("--context", a.model.context,
                 "positions of a conversation; 0 is the model's own, or the longest that fits");
  app.add_option("--chunk", a.model.max_tokens, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  examples::add_speculation_options(app, a.speculation);
  app.add_option("--device", a.model.device, "index or part of the name (hadal-info lists them)");
  examples::add_cache_option(app, a.model.cache_format);
  app.add_flag("--absorb-bf16", a.model.absorb_bf16, "bfloat16 copy of kv_b_proj for decode");
  app.add_flag("--quiet", a.quiet, "answers and errors only");
}

}  // namespace

void add_arguments(CLI::App& app, Arguments& a) {
  app.add_option("MODEL_DIR", a.model.directory, "config.json, *.safetensors, tokenizer.json")
      ->required();
  add_conversation_flags(app, a);
  examples::add_sampling_options(app, a.settings.sampling);
  app.get_option("--temperature")->default_str("the checkpoint's, or 0.6");
  app.get_option("--top-p")->default_str("the checkpoint's, or 0.95");
  app.get_option("--seed")->default_str("another one for each answer");
  examples::add_generation_config_option(app, a.generation_config);
  add_engine_flags(app, a);
  a.given = [&app](std::string_view flag) { return app.count(std::string(flag)) > 0; };
}

}  // namespace hadal::chat
