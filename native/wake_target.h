#pragma once
#include <linux/kvm.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include <atomic>
#include <mutex>

namespace southbridge {

/** What other threads need to get the device thread's attention. It outlives the scheduler, and then disturbs nobody. */
class WakeTarget {
 public:
  WakeTarget(uv_async_t* async, int device_thread, int signal)
      : async_(async), device_thread_(device_thread), signal_(signal) {}

  /** Asks for a slice. */
  void Wake() {
    due.store(true);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (async_ != nullptr) uv_async_send(async_);
  }

  /** A vCPU on a thread of its own has an exit to answer. The device thread looks before it enters the guest. */
  void ExitPending() {
    exits_pending.store(true);
    if (entered.load() == nullptr) {
      if (!in_slice.load()) Wake();
      return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    kvm_run* run = entered.load();
    if (async_ == nullptr || run == nullptr) return;
    __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_tgkill, getpid(), device_thread_, signal_);
  }

  void Disconnect() {
    const std::lock_guard<std::mutex> lock(mutex_);
    async_ = nullptr;
  }

  std::atomic<bool> due{false};
  std::atomic<bool> in_slice{false};
  std::atomic<bool> exits_pending{false};
  /** The page of the vCPU that the device thread itself runs, from before KVM_RUN until after it; only with several vCPUs. */
  std::atomic<kvm_run*> entered{nullptr};
  /** Whether there are vCPUs on other threads. */
  bool shared = false;

 private:
  std::mutex mutex_;
  uv_async_t* async_;
  const int device_thread_;
  const int signal_;
};

}  // namespace southbridge
