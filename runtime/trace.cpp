#include "hadal/runtime/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <limits>

namespace hadal::runtime {
namespace {

constexpr const char* kTrackNames[kTraceTracks] = {"host", "device, prefill", "device, decode",
                                                   "device, drafts"};

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) result += c;
  }
  return result += '"';
}

}  // namespace

Trace::Trace(const TraceOptions& options) : options_(options) {}

RecorderOptions Trace::recorder_options() const {
  RecorderOptions options;
  options.timestamps = options_.dispatches;
  return options;
}

uint32_t Trace::intern(std::string_view name) {
  const auto [found, is_new] = ids_.try_emplace(std::string(name), uint32_t(names_.size()));
  if (is_new) names_.emplace_back(name);
  return found->second;
}

double Trace::since_start(Clock::time_point time) const {
  return std::chrono::duration<double, std::nano>(time - start_).count();
}

void Trace::add_host(std::string_view name, Clock::time_point begin, Clock::time_point end) {
  if (stored_.size() >= options_.max_events) {
    ++dropped_;
    return;
  }
  const double begin_ns = since_start(begin);
  stored_.push_back({intern(name), TraceTrack::kHost, begin_ns, since_start(end) - begin_ns});
}

void Trace::add_dispatches(TraceTrack track, Clock::time_point submitted, Clock::time_point waited,
                           std::span<const DispatchTiming> timings) {
  if (timings.empty()) return;
  if (stored_.size() + timings.size() > options_.max_events) {
    dropped_ += timings.size();
    return;
  }
  Submission submission{track, stored_.size(), timings.size(), 0.0, 0.0};
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (const DispatchTiming& timing : timings) {
    stored_.push_back({intern(timing.label), track, timing.begin_ns, timing.ns});
    first = std::min(first, timing.begin_ns), last = std::max(last, timing.begin_ns + timing.ns);
  }
  submission.least = since_start(submitted) - first, submission.most = since_start(waited) - last;
  submissions_.push_back(submission);
}

void Trace::clear() {
  stored_.clear();
  submissions_.clear();
  dropped_ = 0;
}

std::vector<TraceEvent> Trace::events() const {
  struct Bounds {
    double least = -std::numeric_limits<double>::infinity(), most = -least;
  };
  std::array<Bounds, kTraceTracks> bounds;
  for (const Submission& s : submissions_) {
    Bounds& all = bounds[size_t(s.track)];
    all.least = std::max(all.least, s.least), all.most = std::min(all.most, s.most);
  }
  std::vector<TraceEvent> events;
  events.reserve(stored_.size());
  for (const Stored& s : stored_) {
    events.push_back({names_[s.name], s.track, s.begin_ns, s.duration_ns});
  }
  for (const Submission& s : submissions_) {
    const Bounds& all = bounds[size_t(s.track)];
    const double distance =
        all.least <= all.most ? (all.least + all.most) / 2 : (s.least + s.most) / 2;
    for (size_t i = s.first; i < s.first + s.count; ++i) events[i].begin_ns += distance;
  }
  std::stable_sort(events.begin(), events.end(), [](const TraceEvent& a, const TraceEvent& b) {
    if (a.track != b.track) return a.track < b.track;
    return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns : a.duration_ns > b.duration_ns;
  });
  return events;
}

double Trace::seconds(TraceTrack track, std::string_view name) const {
  const auto id = ids_.find(std::string(name));
  double ns = 0.0;
  for (const Stored& s : stored_) {
    if (id != ids_.end() && s.name == id->second && s.track == track) ns += s.duration_ns;
  }
  return ns * 1e-9;
}

std::string Trace::json() const {
  std::string text = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
  text += R"({"ph":"M","pid":1,"name":"process_name","args":{"name":"hadal"}})";
  for (uint32_t track = 0; track < kTraceTracks; ++track) {
    fmt::format_to(std::back_inserter(text),
                   ",\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\","
                   "\"args\":{{\"name\":{}}}}}",
                   track, quoted(kTrackNames[track]));
  }
  for (const TraceEvent& event : events()) {  // ts and dur are microseconds
    fmt::format_to(std::back_inserter(text),
                   ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"name\":{},\"ts\":{:.3f},"
                   "\"dur\":{:.3f}}}",
                   uint32_t(event.track), quoted(event.name), event.begin_ns * 1e-3,
                   event.duration_ns * 1e-3);
  }
  fmt::format_to(std::back_inserter(text), "\n],\"otherData\":{{\"dropped\":{}}}}}\n", dropped_);
  return text;
}

Status Trace::write(const std::filesystem::path& file) const {
  std::ofstream out(file, std::ios::binary);
  const std::string text = json();
  out.write(text.data(), std::streamsize(text.size()));
  out.close();
  if (!out) return {Errc::kIo, fmt::format("{}: cannot be written", file.string())};
  return {};
}

}  // namespace hadal::runtime
