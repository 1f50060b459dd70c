// Submits the recordings of one pipeline, one at a time, keeps account of the time that its caller
// waited for the device, and tells a trace what ran when.
#pragma once

#include <functional>
#include <vector>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/runtime/trace.h"
#include "hadal/status.h"

namespace hadal::runtime {

class Submitter {
 public:
  explicit Submitter(Device& device) : device_(&device) {}
  Submitter(Submitter&& other) noexcept;
  // What is assigned to must have nothing under way: its recorder and buffers may be gone by now.
  Submitter& operator=(Submitter&& other) noexcept;
  ~Submitter();  // waits

  // Starts an ended recorder and returns; it must stay until wait(). What was under way is waited
  // for first. Errors: Device::submit's and wait's. Not thread-safe, as the others.
  [[nodiscard]] Status submit(Recorder& recorder);
  // Until the last submission is done; at once when none is under way. Errors: Device::wait's, and
  // those of reading timestamps.
  [[nodiscard]] Status wait();

  // Host seconds inside waits so far. What a step takes besides is the host's own work.
  [[nodiscard]] double waited_seconds() const { return waited_seconds_; }

  // Called by wait() with the device time of every dispatch; needs RecorderOptions::timestamps.
  using Profile = std::function<void(const std::vector<DispatchTiming>&)>;
  void set_profile(Profile profile) { profile_ = std::move(profile); }
  // Spans `submit` and `wait` of the host go there from now on, and a submission's dispatches to
  // `track` where the trace wants them and the recorder has timestamps; null: nowhere.
  void set_trace(Trace* trace, TraceTrack track) { trace_ = trace, track_ = track; }
  [[nodiscard]] Trace* trace() const { return trace_; }

 private:
  [[nodiscard]] Status report(const Recorder& recorder, Trace::Clock::time_point waited);
  Device* device_;
  Recorder* running_ = nullptr;
  Ticket ticket_;
  double waited_seconds_ = 0.0;
  Profile profile_;
  Trace* trace_ = nullptr;
  TraceTrack track_ = TraceTrack::kHost;
  Trace::Clock::time_point submitted_;  // when the submission under way began
};

}  // namespace hadal::runtime
