#pragma once
#include <linux/kvm.h>
#include <stdint.h>

#include <atomic>
#include <memory>
#include <thread>

#include "wake_target.h"

namespace southbridge {

/**
 * A native thread that runs one of several vCPUs. Its exits are answered on the device thread: the state below lives in
 * the second word of kvm_run, which is padding to the kernel, so that JavaScript reads it without a call.
 */
class VcpuThread {
 public:
  enum State : uint32_t {
    kParked = 0,   // outside the guest, all state readable
    kRunning = 1,  // in the guest, or on its way there
    kExited = 2,   // an exit awaits its answer
  };

  VcpuThread(int vcpu_fd, kvm_run* run, int index, std::shared_ptr<WakeTarget> target);
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  /** The exit has been answered. */
  void Resume();
  /** Asks it to leave the guest. */
  void Park();
  /** Waits until it has. False: it is parked. True: an exit must be answered first. */
  bool AwaitParked();
  void Unpark();
  /** The kernel's number of the thread. */
  int Id() const;

 private:
  enum Command : uint32_t { kStay = 0, kGo = 1, kQuit = 2 };

  void Main();
  /** Runs the guest until the next exit; false where it is to park instead. */
  bool Enter();
  void Kick();
  std::atomic<uint32_t>& state() { return *state_; }

  const int fd_;
  kvm_run* const run_;
  std::atomic<uint32_t>* const state_;
  const std::shared_ptr<WakeTarget> target_;
  std::atomic<uint32_t> command_{kStay};
  std::atomic<int> id_{0};
  std::thread thread_;
};

}  // namespace southbridge
