// Command buffers that are recorded once and submitted again. A recording holds all that its
// commands say: sizes, addresses, kernels. What changes between two submissions lies in device
// memory.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/runtime/trace.h"
#include "hadal/status.h"

namespace hadal::runtime {

// What the commands of a decode step or of its drafts depend on, besides objects that outlive them.
struct RecordingKey {
  uint32_t rows = 0;
  uint32_t max_kv_len = 0;
  uint64_t tail = 0;  // of what a caller records behind the pass
  bool has_tail = false;
  // Of drafts by the MTP layer: rows that the first, second, .. guess is made for.
  std::vector<uint32_t> guesses = {};
  bool operator==(const RecordingKey&) const = default;
};

// mla_decode is one dispatch for sequences up to these, two beyond.
inline constexpr uint32_t kShortKvLen = 1024;

// The length of attention, at most `most`, that a recording for a step of up to `kv_len` is made
// for. Attention plans for a length at least that of every row: a splits' count, which sizes the
// grid and the scratch. Lengths come from device memory, splits past a row's end do nothing, and no
// bit depends on their number (hadal/mla_decode.h). So a recording serves every length up to a
// power of two of splits, at the price of at most as many empty ones.
[[nodiscard]] uint32_t recorded_kv_len(uint32_t kv_len, uint32_t most);

struct RecordingStats {
  uint64_t recorded = 0, replayed = 0;
};

class Recordings {
 public:
  // At most `capacity` (at least 1) recordings; the one used longest ago makes room for a new one.
  Recordings(Device& device, RecorderOptions options, size_t capacity)
      : device_(&device), options_(options), capacity_(capacity) {}

  // The key's recorder, ended; a new one is filled by `record`. It stays until the next call. None
  // of those that it gave may be under way. Errors: the recorder's and those of `record`, which
  // leave no recording. Not thread-safe.
  [[nodiscard]] Result<Recorder*> get(const RecordingKey& key,
                                      const std::function<Status(Recorder&)>& record);
  [[nodiscard]] const RecordingStats& stats() const { return stats_; }
  // New recordings are spans `record` there; null: nowhere.
  void set_trace(Trace* trace) { trace_ = trace; }

 private:
  struct Recording {
    RecordingKey key;
    Recorder recorder;
  };
  Device* device_;
  RecorderOptions options_;
  size_t capacity_;
  std::list<Recording> recordings_;  // the one used last in front
  RecordingStats stats_;
  Trace* trace_ = nullptr;
};

}  // namespace hadal::runtime
