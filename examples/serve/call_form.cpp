#include "serve/call_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "serve/json.h"
#include "serve/tool_calls.h"

namespace hadal::serve {
namespace {

using Tokens = std::vector<uint32_t>;

// A conversation with two calls, as no other text of a template has them.
const std::string kFirst = "first_called", kSecond = "second_called", kArguments = R"({"n": 1})";

std::string messages_with(const std::string& arguments) {
  const auto call = [&](const std::string& name) {
    return R"({"id":"call_1","type":"function","function":{"name":")" + name + R"(","arguments":)" +
           arguments + "}}";
  };
  return R"([{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[)" +
         call(kFirst) + "," + call(kSecond) + "]}]";
}

// What the masks of one answer know: immutable.
struct Plan {
  struct Tool {
    Tokens first, next;  // up to the arguments: of the first call, of a later one
    std::shared_ptr<const runtime::JsonGrammar> grammar;
  };
  std::vector<Tool> tools;
  Tokens call_end, closing, end_ids;
  bool many = false;
};

// Where an answer is, from its tokens alone; the grammars' masks are kept for their speed.
class CallMask {
 public:
  explicit CallMask(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}

  bool operator()(std::span<const uint32_t> generated, std::span<uint32_t> allowed) {
    rest_ = generated, allowed_ = allowed;
    std::vector<const Tokens*> ways;
    for (const Plan::Tool& tool : plan_->tools) ways.push_back(&tool.first);
    std::optional<size_t> tool = follow(ways);
    for (size_t call = 0; tool; ++call) {
      if (!arguments(call, *tool) || !follow({&plan_->call_end})) return true;
      ways = {&plan_->closing};
      for (const Plan::Tool& next : plan_->tools) {
        if (plan_->many) ways.push_back(&next.next);
      }
      const std::optional<size_t> way = follow(ways);
      if (!way) return true;
      if (*way == 0) {
        for (const uint32_t id : plan_->end_ids) allow(id);
        return true;
      }
      tool = *way - 1;
    }
    return true;
  }

 private:
  void allow(uint32_t id) { allowed_[id / 32] |= 1u << (id % 32); }

  // The way that has been gone to its end; else what goes on is allowed.
  std::optional<size_t> follow(const std::vector<const Tokens*>& ways) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const Tokens& way = *ways[i];
      const auto [differs, unused] =
          std::mismatch(way.begin(), way.end(), rest_.begin(), rest_.end());
      const auto same = size_t(differs - way.begin());
      if (same == way.size()) {
        rest_ = rest_.subspan(same);
        return i;
      }
      if (same == rest_.size()) allow(*differs);
    }
    return {};
  }

  // Whether they have ended.
  bool arguments(size_t call, size_t tool) {
    const auto end = std::find(rest_.begin(), rest_.end(), plan_->call_end.front());
    if (end != rest_.end()) {
      rest_ = rest_.subspan(size_t(end - rest_.begin()));
      return true;
    }
    if (masks_.size() <= call) masks_.resize(call + 1);
    if (!masks_[call].second || masks_[call].first != tool) {
      masks_[call] = {tool, plan_->tools[tool].grammar->mask()};
    }
    (void)masks_[call].second(rest_, allowed_);
    return false;
  }

  std::shared_ptr<const Plan> plan_;
  std::vector<std::pair<size_t, runtime::TokenMask>> masks_;  // of each call: its tool's
  std::span<const uint32_t> rest_;
  std::span<uint32_t> allowed_;
};

}  // namespace

Result<CallForm> CallForm::create(const model::ChatTemplate& chat_template,
                                  const model::Tokenizer& tokenizer,
                                  std::span<const uint32_t> end_ids) {
  CallForm form;
  form.end_ids_.assign(end_ids.begin(), end_ids.end());
  const auto ask = [&](bool objects) {
    model::ChatInput input;
    input.tools = R"([{"type":"function","function":{"name":"f","description":"",)"
                  R"("parameters":{"type":"object","properties":{}}}}])";
    input.messages = messages_with(objects ? kArguments : Json(kArguments).dump());
    const Result<std::string> text = chat_template.render(input);
    form.arguments_are_objects_ = objects;
    return text.ok() ? form.read(*text) : text.status();
  };
  const Status with_text = ask(false);
  if (!with_text.ok() && !ask(true).ok()) return Status{Errc::kUnsupported, with_text.message()};
  HADAL_ASSIGN(const Tokens call_end, tokenizer.encode(form.call_end_, /*add_special=*/false));
  HADAL_ASSIGN(form.vocabulary_,
               runtime::GrammarVocabulary::create(tokenizer, std::span(call_end).first(1)));
  return form;
}

std::string CallForm::messages(const std::string& json) const {
  if (!arguments_are_objects_) return json;
  Json messages = Json::parse(json);
  for (Json& message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || !calls->is_array()) continue;
    for (Json& call : *calls) {
      const Json::json_pointer place("/function/arguments");
      if (!call.contains(place) || !call[place].is_string()) continue;
      Result<Json> arguments = examples::parse_json(call[place].get<std::string>());
      if (arguments.ok()) call[place] = std::move(*arguments);
    }
  }
  return dump(messages);
}

Status CallForm::read(const std::string& rendered) {
  const Status other{Errc::kUnsupported, "the chat template writes calls in no form known here"};
  constexpr size_t npos = std::string::npos;
  const size_t first = rendered.find(kFirst), second = rendered.find(kSecond);
  if (first == npos || second == npos) return other;
  const size_t begin = rendered.rfind(kCallsBegin, first);
  const size_t a = rendered.find(kArguments, first), b = rendered.find(kArguments, second);
  const size_t end = rendered.find(kCallsEnd, second);
  if (begin == npos || a > second || b > end || end == npos) return other;
  const size_t behind_a = a + kArguments.size(), behind_b = b + kArguments.size();
  opening_ = rendered.substr(begin, first - begin);
  middle_ = rendered.substr(first + kFirst.size(), a - first - kFirst.size());
  between_ = rendered.substr(behind_a, second - behind_a);
  closing_ = rendered.substr(behind_b, end + kCallsEnd.size() - behind_b);
  const size_t mark = between_.find(kCallEnd);
  if (mark == npos) return other;
  call_end_ = between_.substr(0, mark + kCallEnd.size());
  if (!closing_.starts_with(call_end_)) return other;
  between_.erase(0, call_end_.size()), closing_.erase(0, call_end_.size());
  const std::string written = rendered.substr(begin, end + kCallsEnd.size() - begin);
  if (written != opening_ + kFirst + middle_ + kArguments + call_end_ + between_ + kSecond +
                     middle_ + kArguments + call_end_ + closing_) {
    return other;
  }
  // What is held to this form must be told apart again.
  ToolCallSplitter splitter;
  TextAndCalls read;
  splitter.push(written, read);
  splitter.flush(read);
  const bool known = read.text.empty() && read.calls.size() == 2 && read.calls[1].name == kSecond &&
                     read.calls[1].arguments == kArguments;
  return known ? Status() : other;
}

Result<MaskMaker> CallForm::masks(const model::Tokenizer& tokenizer,
                                  const std::vector<CallableTool>& tools, bool many) const {
  const auto encode = [&](const std::string& text) {
    return tokenizer.encode(text, /*add_special=*/false);
  };
  auto plan = std::make_shared<Plan>();
  plan->many = many, plan->end_ids = end_ids_;
  HADAL_ASSIGN(plan->call_end, encode(call_end_));
  HADAL_ASSIGN(plan->closing, encode(closing_));
  for (const CallableTool& tool : tools) {
    Plan::Tool made;
    HADAL_ASSIGN(made.first, encode(opening_ + tool.name + middle_));
    HADAL_ASSIGN(made.next, encode(between_ + tool.name + middle_));
    auto grammar = runtime::JsonGrammar::compile(tool.schema, vocabulary_);
    if (!grammar.ok()) {
      return Status{grammar.status().code(),
                    fmt::format("{}: {}", tool.field, grammar.status().message())};
    }
    made.grammar = *grammar;
    plan->tools.push_back(std::move(made));
  }
  return MaskMaker([plan] { return CallMask(plan); });
}

}  // namespace hadal::serve
