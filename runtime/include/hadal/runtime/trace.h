// What an engine does over time: spans of the host, and every dispatch of both pipelines by the
// device's timestamps, as a file that Perfetto (ui.perfetto.dev) and chrome://tracing open.
//
// The clocks: device times have a zero of their own, and Vulkan compares those of one queue only. A
// submission's dispatches lie between its submission and the end of the wait for it, so every
// submission bounds the distance of its track's clock from the host's on both sides; the trace
// takes the middle of what all those of a track leave (hadal reads no calibrated timestamps). Where
// drift leaves nothing, each submission is placed in the middle of its own bounds.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/recorder.h"
#include "hadal/status.h"

namespace hadal::runtime {

// The host, and the device by who submitted. Guesses behind a prefill pass are on its track.
enum class TraceTrack { kHost, kPrefill, kDecode, kDrafts };
inline constexpr uint32_t kTraceTracks = 4;

struct TraceOptions {
  // Timestamps around every dispatch, which cost a little themselves; off: the host's spans only.
  bool dispatches = true;
  uint32_t max_events = 1u << 22;  // what comes later is counted and left out
};

// A finished span, in nanoseconds since the trace was made.
struct TraceEvent {
  std::string_view name;  // of a dispatch the kernel's word; lives as long as the trace
  TraceTrack track = TraceTrack::kHost;
  double begin_ns = 0.0, duration_ns = 0.0;
};

// Not thread-safe: what shares a trace (an engine, a generator) runs in one thread.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Trace(const TraceOptions& options = {});

  [[nodiscard]] bool wants_dispatches() const { return options_.dispatches; }
  // Recorder options of a pipeline whose dispatches are to be seen.
  [[nodiscard]] RecorderOptions recorder_options() const;

  // A span of the host that ends with the object's life; spans nest. Nothing without a trace.
  class Span {
   public:
    Span(Trace* trace, std::string_view name) : trace_(trace), name_(name) {
      if (trace_) begin_ = Clock::now();
    }
    ~Span() {
      if (trace_) trace_->add_host(name_, begin_, Clock::now());
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    Trace* trace_;
    std::string_view name_;
    Clock::time_point begin_;
  };

  void add_host(std::string_view name, Clock::time_point begin, Clock::time_point end);
  // The dispatches of a submission, with what the host knows of when it ran.
  void add_dispatches(TraceTrack track, Clock::time_point submitted, Clock::time_point waited,
                      std::span<const DispatchTiming> timings);

  // Forgets every span.
  void clear();
  // Every span: track by track, in the order of their beginnings, an outer one before its inner.
  [[nodiscard]] std::vector<TraceEvent> events() const;
  // Seconds in spans of that name (of the host, an inner one counts like an outer one).
  [[nodiscard]] double seconds(TraceTrack track, std::string_view name) const;
  [[nodiscard]] uint64_t dropped() const { return dropped_; }

  // Chrome's trace event format. Errors of write: kIo.
  [[nodiscard]] std::string json() const;
  [[nodiscard]] Status write(const std::filesystem::path& file) const;

 private:
  struct Stored {
    uint32_t name = 0;
    TraceTrack track = TraceTrack::kHost;
    double begin_ns = 0.0, duration_ns = 0.0;  // a dispatch's: on the device's clock
  };
  struct Submission {
    TraceTrack track = TraceTrack::kHost;
    size_t first = 0, count = 0;     // of stored_
    double least = 0.0, most = 0.0;  // what must be added to the device's clock, at least and
                                     // at most
  };
  [[nodiscard]] uint32_t intern(std::string_view name);
  [[nodiscard]] double since_start(Clock::time_point time) const;

  TraceOptions options_;
  Clock::time_point start_ = Clock::now();
  std::vector<std::string> names_;
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<Stored> stored_;
  std::vector<Submission> submissions_;
  uint64_t dropped_ = 0;
};

}  // namespace hadal::runtime
