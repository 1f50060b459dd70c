// Values that are made once per key and stay: makers of different keys run at once, whoever asks
// for a key that is being made waits for it.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "hadal/status.h"

namespace hadal::vk {

// Thread-safe, except for clear().
template <class Key, class Value>
class OnceMap {
 public:
  // The key's value; null where it has not been made yet.
  [[nodiscard]] const Value* find(const Key& key) const {
    std::scoped_lock lock(mutex_);
    const auto found = slots_.find(key);
    return found == slots_.end() ? nullptr : found->second.value.get();
  }

  // The key's value, from `make() -> Result<std::unique_ptr<Value>>` where there is none. What
  // fails to be made is not kept: its error goes to the caller whose `make` it was, and the next
  // one, perhaps already waiting, makes it again.
  template <class Make>
  [[nodiscard]] Result<const Value*> get(const Key& key, Make&& make) {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[key];  // the map's nodes stay where they are
    ended_.wait(lock, [&] { return !slot.making; });
    if (slot.value) return static_cast<const Value*>(slot.value.get());
    slot.making = true;
    lock.unlock();
    Making making(*this, slot);  // ends it also behind a `make` that throws
    Result<std::unique_ptr<Value>> made = std::forward<Make>(make)();
    if (!made.ok()) return made.status();
    return making.keep(std::move(made).value());
  }

  // Nobody may be inside another call.
  void clear() { slots_.clear(); }

 private:
  struct Slot {
    bool making = false;
    std::unique_ptr<Value> value;
  };
  class Making {
   public:
    Making(OnceMap& map, Slot& slot) : map_(map), slot_(slot) {}
    ~Making() {
      {
        std::scoped_lock lock(map_.mutex_);
        slot_.making = false;
      }
      map_.ended_.notify_all();
    }
    Making(const Making&) = delete;
    Making& operator=(const Making&) = delete;
    const Value* keep(std::unique_ptr<Value> value) {
      std::scoped_lock lock(map_.mutex_);
      slot_.value = std::move(value);
      return slot_.value.get();
    }

   private:
    OnceMap& map_;
    Slot& slot_;
  };

  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::map<Key, Slot> slots_;
};

}  // namespace hadal::vk
