#include "scheduler.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>

#include "errors.h"
#include "kvm_vcpu.h"
#include "run.h"

namespace southbridge {

namespace {
/** Promises and ticks that an exit set off wait at most this long; a slice without exits has none and needs no end. */
constexpr uint64_t kSliceNs = 8000000;
/** How long a guest that exits by itself may take to the next exit before it is interrupted. */
constexpr uint64_t kPatienceNs = 200000;
constexpr uint64_t kNsPerMs = 1000000;
}  // namespace

int KickSignal() { return SIGRTMIN; }

void InstallKickHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;  // KVM_RUN returns EINTR all the same; Node's own calls are left alone.
    sigaction(KickSignal(), &action, nullptr);
  });
}

Napi::Function Scheduler::Define(Napi::Env env) {
  return DefineClass(env, "Scheduler",
                     {InstanceMethod<&Scheduler::Bind>("bind"), InstanceMethod<&Scheduler::WakeFromJs>("wake"),
                      InstanceMethod<&Scheduler::SetDeadline>("setDeadline"), InstanceMethod<&Scheduler::SetRef>("setRef"),
                      InstanceMethod<&Scheduler::CloseFromJs>("close")});
}

// new Scheduler(slice)
Scheduler::Scheduler(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Scheduler>(info),
      callback_(Napi::Persistent(info[0].As<Napi::Function>())),
      async_context_(info.Env(), "southbridge.slice") {
  const Napi::Env env = info.Env();
  if (napi_get_uv_event_loop(env, &loop_) != napi_ok) throw Napi::Error::New(env, "there is no event loop");
  InstallKickHandler();
  device_thread_ = static_cast<int>(syscall(SYS_gettid));
  handles_ = new Handles();
  handles_->owner = this;
  handles_->open = 2;
  handles_->async.data = handles_->check.data = handles_;
  target_ = std::make_shared<WakeTarget>(&handles_->async, device_thread_, KickSignal());
  uv_async_init(loop_, &handles_->async, [](uv_async_t*) {});
  uv_check_init(loop_, &handles_->check);
  uv_check_start(&handles_->check, [](uv_check_t* check) {
    Scheduler* owner = static_cast<Handles*>(check->data)->owner;
    if (owner != nullptr && owner->target_->due.exchange(false)) owner->Slice();
  });
  uv_unref(reinterpret_cast<uv_handle_t*>(&handles_->async));
  uv_unref(reinterpret_cast<uv_handle_t*>(&handles_->check));
  napi_add_async_cleanup_hook(
      env, [](napi_async_cleanup_hook_handle, void* data) { if (static_cast<Handles*>(data)->owner != nullptr) static_cast<Handles*>(data)->owner->Close(); },
      handles_, &handles_->hook);
  watcher_ = std::make_unique<Watcher>(uv_backend_fd(loop_), [this] { OnLoopReady(); }, [this] { OnTimer(); });
  if (const int error = watcher_->error()) {
    Close();
    throw SystemError(env, "watcher", error);
  }
}

Scheduler::~Scheduler() { Close(); }

void Scheduler::Close() {
  if (handles_ == nullptr) return;
  watcher_.reset();
  target_->Disconnect();
  handles_->owner = nullptr;
  const uv_close_cb closed = [](uv_handle_t* handle) {
    auto* handles = static_cast<Handles*>(handle->data);
    if (--handles->open != 0) return;
    napi_remove_async_cleanup_hook(handles->hook);
    delete handles;
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&handles_->async), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&handles_->check), closed);
  handles_ = nullptr;
}

void Scheduler::CloseFromJs(const Napi::CallbackInfo&) { Close(); }

void Scheduler::WakeFromJs(const Napi::CallbackInfo&) { target_->Wake(); }

// setRef(on): whether this VM keeps the process alive.
void Scheduler::SetRef(const Napi::CallbackInfo& info) {
  if (handles_ == nullptr) return;
  auto* handle = reinterpret_cast<uv_handle_t*>(&handles_->async);
  if (info[0].ToBoolean()) uv_ref(handle);
  else uv_unref(handle);
}

// setDeadline(ns): nanoseconds from now until the next device timer; Infinity where there is none.
void Scheduler::SetDeadline(const Napi::CallbackInfo& info) {
  if (handles_ == nullptr) return;
  const double ns = info[0].As<Napi::Number>().DoubleValue();
  if (!(ns < 1e18)) {
    device_deadline_ns_ = 0;
    return;
  }
  device_deadline_ns_ = MonotonicNs() + static_cast<uint64_t>(ns > 0 ? ns : 0);
  ArmTimer(device_deadline_ns_);
}

// bind(vcpu): the function that enters the guest on this thread.
Napi::Value Scheduler::Bind(const Napi::CallbackInfo& info) {
  KvmVcpu* vcpu = Napi::ObjectWrap<KvmVcpu>::Unwrap(info[0].As<Napi::Object>());
  return MakeRunFunction(info.Env(), this, info.This().As<Napi::Object>(), vcpu, info[0].As<Napi::Object>());
}

void Scheduler::Slice() {
  const Napi::Env env = callback_.Env();
  const Napi::HandleScope scope(env);
  entries_ = 0;
  loop_ready_ = timer_fired_ = false;
  slice_end_ns_ = 0;
  node_deadline_ns_ = 0;
  target_->in_slice = true;
  napi_value result;
  const napi_status status =
      napi_make_callback(env, async_context_, env.Global(), callback_.Value(), 0, nullptr, &result);
  if (status == napi_pending_exception) {
    napi_value exception;
    napi_get_and_clear_last_exception(env, &exception);
    napi_fatal_exception(env, exception);
  }
  target_->in_slice = false;
  if (handles_ == nullptr) return;
  if (target_->exits_pending.load()) target_->Wake();
  if (entries_ > 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    in_guest_ = nullptr;
    if (!loop_ready_) watcher_->DisarmLoop();
  }
  slice_end_ns_ = 0;
  node_deadline_ns_ = 0;
  RearmTimer();
}

/** Whether the guest may be entered now, or the event loop has work. */
bool Scheduler::Admit() {
  if (handles_ == nullptr) return false;
  // 0 as well where handles await the loop's next turn; else milliseconds of the loop's own, cached time.
  const int timeout_ms = uv_backend_timeout(loop_);
  if (timeout_ms == 0) return false;
  if (timeout_ms > 0) {
    const uint64_t deadline = (uv_now(loop_) + static_cast<uint64_t>(timeout_ms)) * kNsPerMs;
    if (deadline != node_deadline_ns_.load(std::memory_order_relaxed)) ArmTimer(node_deadline_ns_ = deadline);
  }
  return true;
}

void Scheduler::Run(KvmVcpu* vcpu) {
  kvm_run* run = vcpu->run();
  if (!Admit()) {
    run->exit_reason = kExitSlice;
    return;
  }
  if (entries_ == 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    run->immediate_exit = 0;
    end_announced_ = false;
    in_guest_ = run;
    watcher_->ArmLoop();
  } else if (entries_ == 1) {
    ArmTimer(slice_end_ns_ = MonotonicNs() + kSliceNs);
  }
  entries_++;
  if (target_->shared && !Announce(run)) return;
  const int error = EnterGuest(vcpu->fd());
  if (target_->shared) target_->entered.store(nullptr);
  if (error == 0) return;
  if (error == EINTR || error == EAGAIN) {
    run->immediate_exit = 0;
    Classify(run);
    return;
  }
  run->exit_reason = kExitError;
  run->hw.hardware_exit_reason = static_cast<uint64_t>(error);
}

/** Lets the vCPU threads know whom to kick. False where one of them has an exit already. */
bool Scheduler::Announce(kvm_run* run) {
  target_->entered.store(run);
  if (!target_->exits_pending.exchange(false)) return true;
  target_->entered.store(nullptr);
  run->exit_reason = kExitOthers;
  return false;
}

/** Why a kick ended the guest's run. */
void Scheduler::Classify(kvm_run* run) {
  run->exit_reason = target_->exits_pending.exchange(false) ? uint32_t{kExitOthers} : uint32_t{KVM_EXIT_INTR};
  if (loop_ready_) run->exit_reason = kExitSlice;
  if (!timer_fired_.exchange(false)) return;
  const uint64_t now = MonotonicNs();
  const bool slice_over = (slice_end_ns_ != 0 && now >= slice_end_ns_) || (node_deadline_ns_ != 0 && now >= node_deadline_ns_);
  if (slice_over) run->exit_reason = kExitSlice;
  else if (!loop_ready_) run->exit_reason = kExitTimer;
  if (!slice_over) RearmTimer();
}

/** Makes the timer fire at `deadline_ns` or before: a timer that is already earlier stays, and finds nothing due. */
void Scheduler::ArmTimer(uint64_t deadline_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (armed_ns_ != 0 && armed_ns_ <= deadline_ns) return;
  armed_ns_ = deadline_ns;
  watcher_->SetTimer(deadline_ns);
}

uint64_t Scheduler::NextDeadline() const {
  uint64_t next = 0;
  for (const uint64_t deadline : {device_deadline_ns_.load(), node_deadline_ns_.load(), slice_end_ns_.load()}) {
    if (deadline != 0 && (next == 0 || deadline < next)) next = deadline;
  }
  return next;
}

void Scheduler::RearmTimer() {
  const uint64_t next = NextDeadline();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (next == armed_ns_) return;
  armed_ns_ = next;
  watcher_->SetTimer(next);
}

void Scheduler::OnLoopReady() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (in_guest_ == nullptr) return;
  loop_ready_ = true;
  Kick();
}

void Scheduler::OnTimer() {
  const std::lock_guard<std::mutex> lock(mutex_);
  armed_ns_ = 0;
  if (in_guest_ == nullptr) {
    target_->Wake();
    return;
  }
  const uint64_t now = MonotonicNs();
  const uint64_t next = NextDeadline();
  if (next == 0 || next > now) {
    // It was left from a deadline that has moved.
    if (next != 0) watcher_->SetTimer(armed_ns_ = next);
    return;
  }
  timer_fired_ = true;
  if (next == slice_end_ns_.load() && !end_announced_) {
    // There is no hurry, and a signal costs a guest that exits by itself more than its next KVM_RUN coming back at once.
    end_announced_ = true;
    __atomic_store_n(&in_guest_->immediate_exit, 1, __ATOMIC_SEQ_CST);
    watcher_->SetTimer(armed_ns_ = now + kPatienceNs);
    return;
  }
  Kick();
}

void Scheduler::Kick() {
  __atomic_store_n(&in_guest_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_tgkill, getpid(), device_thread_, KickSignal());
}

}  // namespace southbridge
