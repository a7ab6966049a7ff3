#pragma once
#include <napi.h>
#include <uv.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "wake_target.h"
#include "watcher.h"

struct kvm_run;

namespace southbridge {

class KvmVcpu;

/**
 * Interleaves the guest with Node's event loop. JavaScript's callback is one slice: it enters the guest as often as
 * `run` lets it. Slices run in libuv's check phase, after every I/O callback of the same turn, and an async handle of
 * our own starts the next turn: inside setImmediate, uv_backend_timeout() would always be 0.
 */
class Scheduler : public Napi::ObjectWrap<Scheduler> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Scheduler(const Napi::CallbackInfo& info);
  ~Scheduler() override;

  /** Enters the guest once; what came of it is in kvm_run's exit_reason. Device thread only. */
  void Run(KvmVcpu* vcpu);
  /** How other threads ask for a slice. */
  const std::shared_ptr<WakeTarget>& target() const { return target_; }
  /** Reasons of our own in kvm_run's exit_reason, beyond the kernel's. */
  enum : uint32_t { kExitSlice = 0x100, kExitTimer = 0x101, kExitError = 0x102, kExitOthers = 0x103 };

 private:
  struct Handles {
    uv_async_t async;
    uv_check_t check;
    Scheduler* owner;
    napi_async_cleanup_hook_handle hook;
    int open;
  };

  Napi::Value Bind(const Napi::CallbackInfo& info);
  void WakeFromJs(const Napi::CallbackInfo& info);
  void SetDeadline(const Napi::CallbackInfo& info);
  void SetRef(const Napi::CallbackInfo& info);
  void CloseFromJs(const Napi::CallbackInfo& info);

  void Slice();
  bool Admit();
  bool Announce(kvm_run* run);
  void Classify(kvm_run* run);
  void ArmTimer(uint64_t deadline_ns);
  void RearmTimer();
  uint64_t NextDeadline() const;
  void OnLoopReady();
  void OnTimer();
  void Kick();
  void Close();

  uv_loop_t* loop_ = nullptr;
  Handles* handles_ = nullptr;
  Napi::FunctionReference callback_;
  Napi::AsyncContext async_context_;
  std::shared_ptr<WakeTarget> target_;
  std::unique_ptr<Watcher> watcher_;

  std::atomic<bool> loop_ready_{false};
  std::atomic<bool> timer_fired_{false};

  /** Guards what the watcher's thread shares with the device thread. */
  std::mutex mutex_;
  kvm_run* in_guest_ = nullptr;
  int device_thread_ = 0;
  uint64_t armed_ns_ = 0;

  /** All absolute CLOCK_MONOTONIC nanoseconds, 0 where there is none: the next device timer, the next of Node's, the slice's end. */
  std::atomic<uint64_t> device_deadline_ns_{0};
  std::atomic<uint64_t> node_deadline_ns_{0};
  std::atomic<uint64_t> slice_end_ns_{0};
  /** The slice's end has been announced to a guest that was exiting by itself. */
  bool end_announced_ = false;
  uint32_t entries_ = 0;
};

}  // namespace southbridge
