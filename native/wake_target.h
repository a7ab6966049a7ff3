#pragma once
#include <uv.h>

#include <atomic>
#include <mutex>

namespace southbridge {

/** What a thread needs to ask the device thread for a slice. It outlives the scheduler, and then asks nobody. */
class WakeTarget {
 public:
  explicit WakeTarget(uv_async_t* async) : async_(async) {}

  void Wake() {
    due.store(true);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (async_ != nullptr) uv_async_send(async_);
  }

  void Disconnect() {
    const std::lock_guard<std::mutex> lock(mutex_);
    async_ = nullptr;
  }

  std::atomic<bool> due{false};
  /** The device thread is looking at the vCPUs by itself: it need not be woken. */
  std::atomic<bool> attentive{false};

 private:
  std::mutex mutex_;
  uv_async_t* async_;
};

}  // namespace southbridge
