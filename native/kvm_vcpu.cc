#include "kvm_vcpu.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <system_error>

#include "errors.h"
#include "kvm_vm.h"
#include "scheduler.h"

namespace southbridge {

Napi::Function KvmVcpu::Define(Napi::Env env) {
  return DefineClass(env, "KvmVcpu",
                     {InstanceMethod<&KvmVcpu::Ioctl>("ioctl"), InstanceMethod<&KvmVcpu::Complete>("complete"),
                      InstanceMethod<&KvmVcpu::StartThread>("startThread"), InstanceMethod<&KvmVcpu::Resume>("resume"),
                      InstanceMethod<&KvmVcpu::Park>("park"), InstanceMethod<&KvmVcpu::AwaitParked>("awaitParked"),
                      InstanceMethod<&KvmVcpu::Unpark>("unpark"), InstanceMethod<&KvmVcpu::Close>("close"), InstanceAccessor<&KvmVcpu::Page>("page"),
                      InstanceAccessor<&KvmVcpu::ThreadId>("threadId")});
}

// new KvmVcpu(vm, id)
KvmVcpu::KvmVcpu(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KvmVcpu>(info) {
  const Napi::Env env = info.Env();
  const KvmVm* vm = Napi::ObjectWrap<KvmVm>::Unwrap(info[0].As<Napi::Object>());
  index_ = info[1].As<Napi::Number>().Int32Value();
  fd_ = ioctl(vm->vm_fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index_));
  if (fd_ < 0) throw SystemError(env, "KVM_CREATE_VCPU", errno);
  void* page = mmap(nullptr, vm->run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (page == MAP_FAILED) {
    const int error = errno;
    close(fd_);
    fd_ = -1;
    throw SystemError(env, "mmap", error);
  }
  mapping_ = std::make_shared<Mapping>(page, vm->run_size());
  page_ = Napi::Persistent(Mapping::Expose(env, mapping_));
}

Napi::Value KvmVcpu::Page(const Napi::CallbackInfo&) { return page_.Value(); }

Napi::Value KvmVcpu::Ioctl(const Napi::CallbackInfo& info) { return IoctlOn(info, fd_); }

// Lets the kernel finish the instruction whose exit has been answered, without entering the guest (KVM API, section
// 4.10). True where that made another exit, which must be answered first.
Napi::Value KvmVcpu::Complete(const Napi::CallbackInfo& info) {
  if (!open()) return Napi::Boolean::New(info.Env(), false);
  run()->immediate_exit = 1;
  const int result = ioctl(fd_, KVM_RUN, 0);
  const int error = errno;
  run()->immediate_exit = 0;
  if (result < 0 && error != EINTR && error != EAGAIN) throw SystemError(info.Env(), "KVM_RUN", error);
  return Napi::Boolean::New(info.Env(), result == 0);
}

// startThread(scheduler): from now on a thread of its own runs this vCPU; it starts out parked.
void KvmVcpu::StartThread(const Napi::CallbackInfo& info) {
  const Scheduler* scheduler = Napi::ObjectWrap<Scheduler>::Unwrap(info[0].As<Napi::Object>());
  if (!open() || thread_ != nullptr) return;
  try {
    thread_ = std::make_unique<VcpuThread>(fd_, run(), index_, scheduler->target());
  } catch (const std::system_error& failure) {
    throw SystemError(info.Env(), "pthread_create", failure.code().value());
  }
}

// threadId: the kernel's number of this vCPU's own thread, undefined where it has none
Napi::Value KvmVcpu::ThreadId(const Napi::CallbackInfo& info) {
  return thread_ == nullptr ? info.Env().Undefined() : Napi::Number::New(info.Env(), thread_->Id());
}

void KvmVcpu::Resume(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->Resume();
}

void KvmVcpu::Park(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->Park();
}

Napi::Value KvmVcpu::AwaitParked(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), thread_ != nullptr && thread_->AwaitParked());
}

void KvmVcpu::Unpark(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->Unpark();
}

void KvmVcpu::Close(const Napi::CallbackInfo&) {
  thread_.reset();
  if (!page_.IsEmpty()) {
    page_.Value().Detach();
    page_.Reset();
  }
  CloseAll();
}

void KvmVcpu::CloseAll() {
  if (fd_ < 0) return;
  thread_.reset();
  mapping_->Unmap();
  close(fd_);
  fd_ = -1;
}

}  // namespace southbridge
