#include "vcpu_thread.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "run.h"
#include "scheduler.h"

namespace southbridge {

namespace {

static_assert(sizeof(std::atomic<uint32_t>) == 4, "the state is shared with JavaScript as one word");

void Wait(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void Set(std::atomic<uint32_t>& word, uint32_t value) {
  word.store(value);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

VcpuThread::VcpuThread(int vcpu_fd, kvm_run* run, int index, std::shared_ptr<WakeTarget> target)
    : fd_(vcpu_fd),
      run_(run),
      state_(reinterpret_cast<std::atomic<uint32_t>*>(reinterpret_cast<uint8_t*>(run) + 4)),
      target_(std::move(target)) {
  state().store(kParked);
  target_->shared = true;
  sigset_t all, previous;
  sigfillset(&all);
  sigdelset(&all, KickSignal());
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  thread_ = std::thread(&VcpuThread::Main, this);
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  char name[16];
  snprintf(name, sizeof name, "CPU %d/KVM", index);
  pthread_setname_np(thread_.native_handle(), name);
}

VcpuThread::~VcpuThread() {
  command_.store(kQuit);
  Kick();
  if (state().load() != kRunning) Set(state(), kRunning);
  thread_.join();
}

// Each side first writes its own word and then reads the other's, so that one of them always sees the other.
void VcpuThread::Main() {
  id_.store(static_cast<int>(syscall(SYS_gettid)));
  for (;;) {
    while (state().load() == kParked && command_.load() != kQuit) Wait(state(), kParked);
    while (command_.load() != kQuit && Enter()) {
      state().store(kExited);
      const uint32_t command = command_.load();
      if (command == kQuit) return;
      if (command == kStay) Set(state(), kExited);
      else target_->ExitPending();
      while (state().load() == kExited) Wait(state(), kExited);
    }
    if (command_.load() == kQuit) return;
    Set(state(), kParked);
  }
}

bool VcpuThread::Enter() {
  for (;;) {
    // With immediate_exit set, KVM_RUN finishes an answered exit's instruction and comes back at once.
    if (command_.load() != kGo) __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
    const int error = EnterGuest(fd_);
    if (error == 0) return true;
    if (error != EINTR && error != EAGAIN) {
      run_->exit_reason = Scheduler::kExitError;
      run_->hw.hardware_exit_reason = static_cast<uint64_t>(error);
      return true;
    }
    // Cleared before the command is read: a request that comes in between sets it again.
    __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (command_.load() != kGo) return false;
  }
}

int VcpuThread::Id() const {
  while (id_.load() == 0) sched_yield();
  return id_.load();
}

void VcpuThread::Kick() {
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  pthread_kill(thread_.native_handle(), KickSignal());
}

void VcpuThread::Resume() { Set(state(), kRunning); }

void VcpuThread::Park() {
  command_.store(kStay);
  if (state().load() == kRunning) Kick();
}

bool VcpuThread::AwaitParked() {
  while (state().load() == kRunning) Wait(state(), kRunning);
  return state().load() == kExited;
}

void VcpuThread::Unpark() {
  command_.store(kGo);
  if (state().load() == kParked) Set(state(), kRunning);
}

}  // namespace southbridge
