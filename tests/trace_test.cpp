// The trace: on the host what it makes of given times, on a device what it says of an engine.
#include "hadal/runtime/trace.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "hadal/runtime/engine.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/safetensors_writer.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

using runtime::Trace;
using runtime::TraceEvent;
using runtime::TraceTrack;
using namespace std::chrono_literals;
using nlohmann::json;

std::vector<TraceEvent> of_track(const Trace& trace, TraceTrack track) {
  std::vector<TraceEvent> events = trace.events();
  std::erase_if(events, [&](const TraceEvent& e) { return e.track != track; });
  return events;
}

double end(const TraceEvent& event) {
  return event.begin_ns + event.duration_ns;
}

// A track's clock is 5,000 ns behind the host's. Of a distance to add, its first submission allows
// 4,900 to 5,400, its second 4,600 to 5,100. The other track's clock has another zero.
TEST(TraceHost, PlacesDispatchesWithinWhatEverySubmissionOfTheirTrackAllows) {
  Trace trace;
  const auto zero = Trace::Clock::now();
  const DispatchTiming first[] = {{"a", 300.0, 1000.0}, {"b", 500.0, 1400.0}};
  const DispatchTiming second[] = {{"c", 500.0, 11000.0}};
  const DispatchTiming other[] = {{"d", 100.0, 700.0}};  // 1,300 to 1,500
  trace.add_dispatches(TraceTrack::kPrefill, zero + 5900ns, zero + 7300ns, first);
  trace.add_dispatches(TraceTrack::kDecode, zero + 2000ns, zero + 2300ns, other);
  trace.add_dispatches(TraceTrack::kPrefill, zero + 15600ns, zero + 16600ns, second);
  trace.add_host("zero", zero, zero);
  const double base = of_track(trace, TraceTrack::kHost).at(0).begin_ns;
  const auto prefill = of_track(trace, TraceTrack::kPrefill);
  const auto decode = of_track(trace, TraceTrack::kDecode);
  ASSERT_EQ(prefill.size(), 3u);
  ASSERT_EQ(decode.size(), 1u);
  EXPECT_EQ(prefill[0].name, "a");
  EXPECT_EQ(prefill[1].name, "b");
  EXPECT_NEAR(prefill[0].begin_ns - base, 6000.0, 1e-6);  // the middle of 4,900 to 5,100
  EXPECT_NEAR(prefill[1].begin_ns - base, 6400.0, 1e-6);
  EXPECT_NEAR(prefill[2].begin_ns - base, 16000.0, 1e-6);
  EXPECT_EQ(prefill[2].duration_ns, 500.0);
  EXPECT_NEAR(decode[0].begin_ns - base, 2100.0, 1e-6);
}

TEST(TraceHost, PlacesEachSubmissionByItselfWhereClocksDrift) {
  Trace trace;
  const auto zero = Trace::Clock::now();
  const DispatchTiming timing[] = {{"a", 100.0, 0.0}};
  trace.add_dispatches(TraceTrack::kDecode, zero + 1000ns, zero + 1300ns, timing);  // 1000 to 1200
  trace.add_dispatches(TraceTrack::kDecode, zero + 9000ns, zero + 9500ns, timing);  // 9000 to 9400
  trace.add_host("zero", zero, zero);
  const double base = of_track(trace, TraceTrack::kHost).at(0).begin_ns;
  const auto decode = of_track(trace, TraceTrack::kDecode);
  ASSERT_EQ(decode.size(), 2u);
  EXPECT_NEAR(decode[0].begin_ns - base, 1100.0, 1e-6);
  EXPECT_NEAR(decode[1].begin_ns - base, 9200.0, 1e-6);
}

TEST(TraceHost, WritesWhatPerfettoReads) {
  Trace trace;
  const auto zero = Trace::Clock::now();
  {
    const Trace::Span outer(&trace, "outer");
    const Trace::Span inner(&trace, "in\"n\\er\n");
    const Trace::Span none(nullptr, "none");
  }
  const DispatchTiming timing[] = {{"fp8_gemm", 2500.0, 1e15}};
  trace.add_dispatches(TraceTrack::kDecode, zero, zero + 1ms, timing);
  std::map<std::string, json> spans;
  std::map<int, std::string> tracks;
  const json parsed = json::parse(trace.json());
  for (const json& event : parsed.at("traceEvents")) {
    if (event.at("ph") == "X") {
      spans[event.at("name")] = event;
    } else if (event.at("name") == "thread_name") {
      tracks[event.at("tid")] = event.at("args").at("name");
    }
  }
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(tracks.at(spans.at("outer").at("tid")), "host");
  EXPECT_EQ(tracks.at(spans.at("in\"n\\er").at("tid")), "host");
  EXPECT_EQ(tracks.at(spans.at("fp8_gemm").at("tid")), "device, decode");
  EXPECT_EQ(spans.at("fp8_gemm").at("dur"), 2.5);  // microseconds
  const double begin = spans.at("fp8_gemm").at("ts");
  EXPECT_GE(begin, 0.0);
  EXPECT_LE(begin, 1000.0);
  const testing::TempDir dir;
  ASSERT_TRUE(trace.write(dir / "trace").ok());
  std::ifstream in(dir / "trace");
  EXPECT_EQ(json::parse(in), json::parse(trace.json()));
  const Status refused = trace.write(dir / "none" / "trace");
  EXPECT_EQ(refused.code(), Errc::kIo);
}

TEST(TraceHost, CountsWhatItHasNoRoomFor) {
  runtime::TraceOptions options;
  options.max_events = 3;
  Trace trace(options);
  const auto zero = Trace::Clock::now();
  const DispatchTiming two[] = {{"a", 1.0, 0.0}, {"b", 1.0, 1.0}};
  trace.add_host("x", zero, zero + 3us);
  trace.add_dispatches(TraceTrack::kDecode, zero, zero + 1us, two);
  trace.add_dispatches(TraceTrack::kDecode, zero, zero + 1us, two);
  trace.add_host("x", zero, zero + 3us);
  EXPECT_EQ(trace.events().size(), 3u);
  EXPECT_EQ(trace.dropped(), 3u);
  EXPECT_EQ(json::parse(trace.json()).at("otherData").at("dropped"), 3);
  EXPECT_NEAR(trace.seconds(TraceTrack::kHost, "x"), 3e-6, 1e-12);
  EXPECT_NEAR(trace.seconds(TraceTrack::kDecode, "a"), 1e-9, 1e-15);
  EXPECT_EQ(trace.seconds(TraceTrack::kHost, "a"), 0.0);
  trace.clear();
  EXPECT_TRUE(trace.events().empty());
  EXPECT_EQ(trace.dropped(), 0u);
}

class TraceGpu : public GpuTest {};

// Device times may be 1e15 ns and more, of which a double holds an eighth.
constexpr double kRounding = 1.0;

struct Outcome {
  runtime::EngineStats stats;
  std::map<runtime::RequestId, std::vector<uint32_t>> tokens;
  std::vector<std::vector<DispatchTiming>> decode_steps;  // on the device's own clock, if traced
};

// Six requests in steps of both phases.
Outcome serve(Trace* trace, bool speculate = false) {
  constexpr uint32_t kRows = 4, kContext = 128;
  TestModelOptions options = for_context(kContext, 32);
  options.model.max_decode_rows = kRows;
  options.pages = 2 * kRows;
  TestModel model(HADAL_SOURCE_DIR "/examples/models/fables", options);
  Outcome served;
  if (!model.ok()) return served;
  runtime::PagePool pool(options.pages);
  runtime::EngineOptions engine_options;
  engine_options.max_rows = kRows, engine_options.max_chunk = 32, engine_options.trace = trace;
  engine_options.speculate = engine_options.always_draft = speculate;
  auto engine =
      runtime::Engine::create(*device(), model.model(), model.cache(), pool, engine_options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  if (!engine.ok()) return served;
  if (trace && trace->wants_dispatches() && device()->caps().timestamp_period_ns > 0) {
    engine->decode().set_profile([&](const auto& t) { served.decode_steps.push_back(t); });
  }
  Random random(11);
  for (int i = 0; i < 6; ++i) {
    runtime::EngineRequest request;
    for (uint32_t t = 0; t < 20 + 10u * i; ++t) request.prompt.push_back(random.below(2000));
    request.max_new_tokens = 6;
    EXPECT_TRUE(engine->add(request).ok());
  }
  while (!engine->idle()) {
    const auto tokens = engine->step();
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    if (!tokens.ok()) break;
    for (const runtime::EngineToken& token : *tokens)
      served.tokens[token.request].push_back(token.id);
  }
  served.stats = engine->stats();
  return served;
}

// Kernels by the words of their headers, and the second halves of moe_permute, swiglu, mla_decode.
bool is_kernel(std::string_view name) {
  static const std::set<std::string_view> kOthers = {"moe_combine", "swiglu_tiles",
                                                     "mla_decode_combine"};
  return kOthers.count(name) ||
         std::filesystem::exists(std::filesystem::path(HADAL_SOURCE_DIR "/kernels/include/hadal") /
                                 (std::string(name) + ".h"));
}

// What a submission of a pipeline may have taken, and when its wait ended.
struct Window {
  double begin = 0.0, end = 0.0;
};

// Of a step with both pipelines decode's is submitted and waited for first.
std::map<TraceTrack, std::vector<Window>> windows(const std::vector<TraceEvent>& host) {
  std::map<TraceTrack, std::vector<Window>> result;
  for (const TraceEvent& step : host) {
    if (step.name != "step") continue;
    std::map<std::string_view, std::vector<TraceEvent>> inner;
    for (const TraceEvent& e : host) {
      if (e.begin_ns >= step.begin_ns && end(e) <= end(step)) inner[e.name].push_back(e);
    }
    const auto &submits = inner["submit"], &waits = inner["wait"];
    EXPECT_EQ(submits.size(), inner["begin decode"].size() + inner["begin prefill"].size());
    EXPECT_EQ(submits.size(), waits.size());
    if (submits.empty() || waits.empty()) continue;
    if (!inner["begin decode"].empty()) {
      result[TraceTrack::kDecode].push_back({submits.front().begin_ns, end(waits.front())});
    }
    if (!inner["begin prefill"].empty()) {
      result[TraceTrack::kPrefill].push_back({submits.back().begin_ns, end(waits.back())});
    }
  }
  return result;
}

TEST_F(TraceGpu, ShowsTheHostAndChangesNoToken) {
  Trace trace;
  const Outcome traced = serve(&trace), plain = serve(nullptr);
  ASSERT_FALSE(traced.tokens.empty());
  EXPECT_EQ(traced.tokens, plain.tokens);
  // Spans nest.
  std::map<std::string_view, uint64_t> counts;
  std::vector<TraceEvent> open;
  for (const TraceEvent& event : of_track(trace, TraceTrack::kHost)) {
    ++counts[event.name];
    while (!open.empty() && end(open.back()) <= event.begin_ns) open.pop_back();
    if (!open.empty()) {
      EXPECT_LE(end(event), end(open.back()) + 1e-3) << event.name;
    }
    EXPECT_EQ(open.empty(), event.name == "step") << event.name;
    open.push_back(event);
  }
  const runtime::RecordingStats& decoded = traced.stats.recordings;
  EXPECT_GT(decoded.replayed, 0u);
  EXPECT_GT(counts["begin prefill"], 0u);
  EXPECT_EQ(counts["step"], traced.stats.steps);
  EXPECT_EQ(counts["plan"], traced.stats.steps);
  EXPECT_EQ(counts["begin decode"], decoded.recorded + decoded.replayed);
  EXPECT_EQ(counts["take decoded"], counts["begin decode"]);
  EXPECT_EQ(counts["take prefilled"], counts["begin prefill"]);
  EXPECT_EQ(counts["record"], decoded.recorded + counts["begin prefill"]);  // not when replayed
  for (const char* each : {"upload", "submit", "wait"}) {
    EXPECT_EQ(counts[each], counts["begin decode"] + counts["begin prefill"]) << each;
  }
  const auto seconds = [&](const char* name) { return trace.seconds(TraceTrack::kHost, name); };
  EXPECT_GE(seconds("step"), traced.stats.step_seconds);  // taken inside the spans
  // The same readings of the clock, but for the sum's order.
  EXPECT_NEAR(seconds("wait"), traced.stats.wait_seconds, 1e-9 * counts["wait"]);
}

// Each dispatch of each submission, replayed ones included, between its submission and the end of
// its wait, one behind the other.
TEST_F(TraceGpu, ShowsEveryDispatchOfBothPipelines) {
  if (device()->caps().timestamp_period_ns == 0) GTEST_SKIP() << "the queue has no timestamps";
  Trace trace;
  const Outcome traced = serve(&trace);
  ASSERT_GT(traced.stats.recordings.replayed, 0u);
  // The trace could place old times of a replay within its bounds: the device's own clock tells.
  const auto& steps = traced.decode_steps;
  ASSERT_EQ(steps.size(), traced.stats.recordings.recorded + traced.stats.recordings.replayed);
  for (size_t i = 1; i < steps.size(); ++i) {
    const DispatchTiming& last = steps[i - 1].back();
    EXPECT_GE(steps[i].front().begin_ns + kRounding, last.begin_ns + last.ns) << "step " << i;
  }
  const auto all = windows(of_track(trace, TraceTrack::kHost));
  for (const TraceTrack track : {TraceTrack::kPrefill, TraceTrack::kDecode}) {
    const auto dispatches = of_track(trace, track);
    std::vector<size_t> embeddings(all.at(track).size());  // one in each pass
    size_t window = 0;
    for (size_t i = 0; i < dispatches.size(); ++i) {
      const TraceEvent& event = dispatches[i];
      EXPECT_TRUE(is_kernel(event.name)) << event.name;
      EXPECT_GE(event.duration_ns, 0.0);
      if (i) {
        EXPECT_GE(event.begin_ns + kRounding, end(dispatches[i - 1])) << event.name;
      }
      while (window < embeddings.size() && all.at(track)[window].end + kRounding < end(event)) {
        ++window;
      }
      ASSERT_LT(window, embeddings.size()) << event.name << " at " << event.begin_ns;
      EXPECT_GE(event.begin_ns + kRounding, all.at(track)[window].begin) << event.name;
      embeddings[window] += event.name == "embedding";
    }
    EXPECT_EQ(embeddings, std::vector<size_t>(embeddings.size(), 1));
  }
}

// What guesses behind decode steps take is on a track of its own, inside a span each.
TEST_F(TraceGpu, ShowsGuesses) {
  if (device()->caps().timestamp_period_ns == 0) GTEST_SKIP() << "the queue has no timestamps";
  Trace trace;
  const Outcome traced = serve(&trace, true), plain = serve(nullptr);
  EXPECT_EQ(traced.tokens, plain.tokens);
  std::vector<TraceEvent> spans = of_track(trace, TraceTrack::kHost);
  std::erase_if(spans, [](const TraceEvent& e) { return e.name != "draft"; });
  ASSERT_FALSE(spans.empty());
  std::vector<size_t> heads(spans.size());  // a draw behind each guess: one at this depth, or none
  for (const TraceEvent& event : of_track(trace, TraceTrack::kDrafts)) {
    EXPECT_TRUE(is_kernel(event.name)) << event.name;
    const auto span = std::find_if(spans.begin(), spans.end(), [&](const TraceEvent& e) {
      return e.begin_ns <= event.begin_ns + kRounding && end(event) <= end(e) + kRounding;
    });
    ASSERT_NE(span, spans.end()) << event.name << " at " << event.begin_ns;
    heads[size_t(span - spans.begin())] += event.name == "sample";
  }
  EXPECT_LE(*std::max_element(heads.begin(), heads.end()), 1u);
  EXPECT_GT(std::accumulate(heads.begin(), heads.end(), size_t(0)), 0u);
}

TEST_F(TraceGpu, LeavesDispatchesOutWhenAsked) {
  runtime::TraceOptions options;
  options.dispatches = false;
  Trace trace(options);
  (void)serve(&trace);
  EXPECT_FALSE(of_track(trace, TraceTrack::kHost).empty());
  EXPECT_TRUE(of_track(trace, TraceTrack::kPrefill).empty());
  EXPECT_TRUE(of_track(trace, TraceTrack::kDecode).empty());
}

}  // namespace
}  // namespace hadal::test
