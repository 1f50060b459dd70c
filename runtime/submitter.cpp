#include "hadal/runtime/submitter.h"

#include <cassert>
#include <utility>

namespace hadal::runtime {

Submitter::Submitter(Submitter&& other) noexcept
    : device_(other.device_),
      running_(std::exchange(other.running_, nullptr)),
      ticket_(other.ticket_),
      waited_seconds_(other.waited_seconds_),
      profile_(std::move(other.profile_)),
      trace_(other.trace_),
      track_(other.track_),
      submitted_(other.submitted_) {}

Submitter& Submitter::operator=(Submitter&& other) noexcept {
  assert(!running_);
  device_ = other.device_;
  running_ = std::exchange(other.running_, nullptr);
  ticket_ = other.ticket_;
  waited_seconds_ = other.waited_seconds_;
  profile_ = std::move(other.profile_);
  trace_ = other.trace_, track_ = other.track_;
  submitted_ = other.submitted_;
  return *this;
}

Submitter::~Submitter() {
  // A lost device has nothing under way either.
  if (running_) (void)device_->wait(ticket_);
}

Status Submitter::submit(Recorder& recorder) {
  HADAL_TRY(wait());
  const Trace::Span span(trace_, "submit");
  submitted_ = Trace::Clock::now();
  HADAL_ASSIGN(ticket_, device_->submit(recorder));
  running_ = &recorder;
  return {};
}

Status Submitter::wait() {
  if (!running_) return {};
  const Recorder& recorder = *std::exchange(running_, nullptr);
  const auto start = Trace::Clock::now();
  const Status status = device_->wait(ticket_);
  const auto waited = Trace::Clock::now();
  waited_seconds_ += std::chrono::duration<double>(waited - start).count();
  if (trace_) trace_->add_host("wait", start, waited);
  HADAL_TRY(status);
  return report(recorder, waited);
}

Status Submitter::report(const Recorder& recorder, Trace::Clock::time_point waited) {
  const bool traced = trace_ && trace_->wants_dispatches();
  if (!profile_ && !traced) return {};
  const Trace::Span span(trace_, "read timings");
  const Result<std::vector<DispatchTiming>> timings = recorder.timings();
  // A queue without timestamps leaves a track empty; a profile asked for them.
  if (!timings.ok() && timings.status().code() == Errc::kUnsupported && !profile_) return {};
  HADAL_TRY(timings.status());
  if (traced) trace_->add_dispatches(track_, submitted_, waited, *timings);
  if (profile_) profile_(*timings);
  return {};
}

}  // namespace hadal::runtime
