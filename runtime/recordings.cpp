#include "hadal/runtime/recordings.h"

#include <algorithm>

namespace hadal::runtime {

uint32_t recorded_kv_len(uint32_t kv_len, uint32_t most) {
  uint32_t length = kShortKvLen;
  while (length < kv_len) length *= 2;
  return std::min(length, most);
}

Result<Recorder*> Recordings::get(const RecordingKey& key,
                                  const std::function<Status(Recorder&)>& record) {
  const auto found = std::find_if(recordings_.begin(), recordings_.end(),
                                  [&](const Recording& r) { return r.key == key; });
  if (found != recordings_.end()) {
    recordings_.splice(recordings_.begin(), recordings_, found);
    ++stats_.replayed;
    return &recordings_.front().recorder;
  }
  const Trace::Span span(trace_, "record");
  // A full store gives its oldest recorder's memory to the new recording.
  std::list<Recording> fresh;
  if (recordings_.size() < capacity_) {
    HADAL_ASSIGN(Recorder recorder, Recorder::create(*device_, options_));
    fresh.push_back({key, std::move(recorder)});
  } else {
    fresh.splice(fresh.begin(), recordings_, std::prev(recordings_.end()));
    fresh.front().key = key;
    HADAL_TRY(fresh.front().recorder.reset());
  }
  HADAL_TRY(record(fresh.front().recorder));
  HADAL_TRY(fresh.front().recorder.end());
  recordings_.splice(recordings_.begin(), fresh);
  ++stats_.recorded;
  return &recordings_.front().recorder;
}

}  // namespace hadal::runtime
