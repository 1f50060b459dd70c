#include "hadal/runtime/submitter.h"

#include <cassert>
#include <chrono>
#include <utility>

namespace hadal::runtime {

Submitter::Submitter(Submitter&& other) noexcept
    : device_(other.device_),
      running_(std::exchange(other.running_, nullptr)),
      ticket_(other.ticket_),
      waited_seconds_(other.waited_seconds_),
      profile_(std::move(other.profile_)) {}

Submitter& Submitter::operator=(Submitter&& other) noexcept {
  assert(!running_);
  device_ = other.device_;
  running_ = std::exchange(other.running_, nullptr);
  ticket_ = other.ticket_;
  waited_seconds_ = other.waited_seconds_;
  profile_ = std::move(other.profile_);
  return *this;
}

Submitter::~Submitter() {
  // A lost device has nothing under way either.
  if (running_) (void)device_->wait(ticket_);
}

Status Submitter::submit(Recorder& recorder) {
  HADAL_TRY(wait());
  HADAL_ASSIGN(ticket_, device_->submit(recorder));
  running_ = &recorder;
  return {};
}

Status Submitter::wait() {
  if (!running_) return {};
  const Recorder& recorder = *std::exchange(running_, nullptr);
  const auto start = std::chrono::steady_clock::now();
  const Status status = device_->wait(ticket_);
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
  waited_seconds_ += waited.count();
  HADAL_TRY(status);
  if (profile_) {
    HADAL_ASSIGN(const auto timings, recorder.timings());
    profile_(timings);
  }
  return {};
}

}  // namespace hadal::runtime
