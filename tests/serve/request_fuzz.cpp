#include "serve/request_fuzz.h"

#include <cstdlib>
#include <string_view>

#include "serve/generate_request.h"
#include "serve/tool_calls.h"

namespace {

using namespace hadal::serve;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_error(const ApiError& error) {
  require(error.http == 400 && !error.message.empty() && error.message.size() < 1000);
  const Outcome<Json> body = parse_body(error.body());  // it is JSON, whatever it quotes
  require(body.ok() && (*body)["error"]["message"] == error.message);
}

void check_request(const Outcome<GenerateRequest>& request) {
  if (!request.ok()) return check_error(request.error());
  const RequestLimits limits;
  require(hadal::runtime::check_sampling(request->sampling).ok());
  require(request->n >= 1 && request->n <= limits.choices);
  require(request->stop.size() <= limits.stop_strings);
  for (const std::string& stop : request->stop) require(!stop.empty());
  require(!request->max_tokens || *request->max_tokens > 0);
  require(request->must_call.size() <= limits.callable_tools);
  for (const CallableTool& tool : request->must_call) {
    require(is_call_name(tool.name) && (tool.schema.empty() || parse_body(tool.schema).ok()));
  }
  // What goes on to template and grammar is JSON again.
  for (const std::string* text : {&request->messages, &request->tools, &request->template_variables,
                                  &request->format.schema}) {
    require(text->empty() || parse_body(*text).ok());
  }
}

}  // namespace

int hadal_fuzz_serve_request(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check_request(parse_completion_request(body));
  check_request(parse_chat_request(body));
  check_request(parse_tokenize_request(body));
  if (const auto ids = parse_detokenize_request(body); !ids.ok()) check_error(ids.error());
  return 0;
}
