#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace hadal::serve {
namespace {

void head(std::string& out, const std::string& name, const char* type, const std::string& help) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

template <class Value>
void one(std::string& out, const std::string& name, const char* type, const std::string& help,
         Value value) {
  head(out, name, type, help);
  fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
}

void append_engine(std::string& out, const runtime::EngineStats& s) {
  const auto gauge = [&](const char* name, const char* help, auto value) {
    one(out, name, "gauge", help, value);
  };
  const auto counter = [&](const char* name, const char* help, auto value) {
    one(out, name, "counter", help, value);
  };
  gauge("hadal_requests_waiting", "Requests that wait for cache pages or rows.",
        s.scheduler.waiting);
  gauge("hadal_requests_running", "Requests that have cache pages.", s.scheduler.admitted);
  counter("hadal_preemptions_total", "Requests that lost their pages to others.",
          s.scheduler.preemptions);
  gauge("hadal_cache_pages", "Pages of the latent cache.", s.pages.total);
  gauge("hadal_cache_pages_used", "Pages that a request holds.", s.pages.used);
  gauge("hadal_cache_pages_cached", "Pages kept for requests with the same prefix.",
        s.pages.cached);
  counter("hadal_prefix_pages_wanted_total", "Whole pages of prompts that were looked up.",
          s.pages.wanted_pages);
  counter("hadal_prefix_pages_hit_total", "Of them, pages that were there.", s.pages.matched_pages);
  counter("hadal_prefix_tokens_reused_total", "Prompt tokens that were not computed again.",
          s.scheduler.reused_tokens);
  counter("hadal_steps_total", "Steps of the engine.", s.steps);
  counter("hadal_step_seconds_total", "Time in steps.", s.step_seconds);
  counter("hadal_drafts_total", "Guessed tokens that were checked.", s.verified_drafts);
  counter("hadal_drafts_accepted_total", "Of them, right ones.", s.accepted_drafts);
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::add(double value) {
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  ++counts_[size_t(bound - bounds_.begin())];
  sum_ += value, ++count_;
}

void Histogram::append(std::string& out, const std::string& name, const std::string& help) const {
  head(out, name, "histogram", help);
  const auto to = std::back_inserter(out);
  uint64_t sum = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    sum += counts_[i];
    fmt::format_to(to, "{}_bucket{{le=\"{}\"}} {}\n", name, bounds_[i], sum);
  }
  fmt::format_to(to, "{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, count_,
                 sum_);
}

void TokenRate::move_to(Time now) {
  const int64_t second =
      std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  for (; second_ < second; ++second_) {
    if (second - second_ > int64_t(tokens_.size())) second_ = second - int64_t(tokens_.size());
    std::move(tokens_.begin() + 1, tokens_.end(), tokens_.begin());
    tokens_.back() = 0;
  }
}

void TokenRate::add(Time now, uint64_t tokens) {
  move_to(now);
  tokens_.back() += tokens;
}

double TokenRate::per_second(Time now) {
  move_to(now);
  uint64_t sum = 0;
  for (size_t i = 0; i < kSeconds; ++i) sum += tokens_[i];
  return double(sum) / double(kSeconds);
}

Metrics::Metrics()
    : first_token({0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}),
      between_tokens({0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                      0.5, 1, 2.5}) {}

std::string Metrics::text(const Now& now) {
  std::string out;
  append_engine(out, now.engine);
  one(out, "hadal_requests_open", "gauge", "Requests handed to the engine that have not ended.",
      now.requests);
  one(out, "hadal_connections", "gauge", "Open connections.", now.connections);
  one(out, "hadal_connections_refused_total", "counter",
      "Connections closed at once, as there were too many.", refused_connections);
  one(out, "hadal_connections_cut_total", "counter",
      "Connections whose client took too long to send or to read.", cut_connections);
  one(out, "hadal_clients_gone_total", "counter", "Clients that left before their answer's end.",
      clients_gone);
  one(out, "hadal_prompt_tokens_total", "counter", "Tokens of prompts.", prompt_tokens);
  one(out, "hadal_generated_tokens_total", "counter", "Tokens generated.", generated_tokens);
  one(out, "hadal_tokens_per_second", "gauge", "Tokens generated a second, over five seconds.",
      rate.per_second(std::chrono::steady_clock::now()));
  first_token.append(out, "hadal_time_to_first_token_seconds",
                     "From a request's arrival to its first token.");
  between_tokens.append(out, "hadal_time_between_tokens_seconds",
                        "From one token of a request to its next.");
  head(out, "hadal_requests_total", "counter", "Requests of the engine by how they ended.");
  for (const auto& [finish, count] : finished) {
    fmt::format_to(std::back_inserter(out), "hadal_requests_total{{finish=\"{}\"}} {}\n", finish,
                   count);
  }
  head(out, "hadal_http_responses_total", "counter", "Responses by HTTP status.");
  for (const auto& [code, count] : responses) {
    fmt::format_to(std::back_inserter(out), "hadal_http_responses_total{{code=\"{}\"}} {}\n", code,
                   count);
  }
  return out;
}

}  // namespace hadal::serve
