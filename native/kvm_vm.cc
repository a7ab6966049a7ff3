#include "kvm_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "errors.h"

namespace southbridge {

Napi::Value IoctlOn(const Napi::CallbackInfo& info, int fd) {
  const Napi::Env env = info.Env();
  const auto request = static_cast<unsigned long>(info[0].As<Napi::Number>().Int64Value());
  uintptr_t argument = 0;
  if (info[1].IsNumber()) {
    argument = static_cast<uintptr_t>(info[1].As<Napi::Number>().Int64Value());
  } else if (!info[1].IsUndefined()) {
    const Bytes bytes = BytesOf(info[1], "the ioctl argument");
    // The kernel moves as many bytes as the request's size field says (asm-generic/ioctl.h, bits 16 to 29).
    if (bytes.length < _IOC_SIZE(request)) throw Napi::RangeError::New(env, "the ioctl argument is too short");
    argument = reinterpret_cast<uintptr_t>(bytes.data);
  }
  int result;
  do result = ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  if (result < 0) throw SystemError(env, "ioctl", errno);
  return Napi::Number::New(env, result);
}

Napi::Function KvmVm::Define(Napi::Env env) {
  return DefineClass(env, "KvmVm",
                     {InstanceMethod<&KvmVm::SystemIoctl>("systemIoctl"), InstanceMethod<&KvmVm::Ioctl>("ioctl"),
                      InstanceMethod<&KvmVm::SetMemory>("setMemory"), InstanceMethod<&KvmVm::DirtyLog>("dirtyLog"),
                      InstanceMethod<&KvmVm::Close>("close")});
}

KvmVm::KvmVm(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KvmVm>(info) {
  const Napi::Env env = info.Env();
  kvm_fd_ = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm_fd_ < 0) throw SystemError(env, "open", errno);
  do vm_fd_ = ioctl(kvm_fd_, KVM_CREATE_VM, 0);
  while (vm_fd_ < 0 && errno == EINTR);
  const int create_error = errno;
  const int run_size = ioctl(kvm_fd_, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (vm_fd_ < 0 || run_size < 0) {
    const int error = vm_fd_ < 0 ? create_error : errno;
    CloseAll();
    throw SystemError(env, vm_fd_ < 0 ? "KVM_CREATE_VM" : "KVM_GET_VCPU_MMAP_SIZE", error);
  }
  run_size_ = static_cast<size_t>(run_size);
}

Napi::Value KvmVm::SystemIoctl(const Napi::CallbackInfo& info) { return IoctlOn(info, kvm_fd_); }

Napi::Value KvmVm::Ioctl(const Napi::CallbackInfo& info) { return IoctlOn(info, vm_fd_); }

// setMemory(slot, flags, gpa, bytes, size): `bytes` are held until the slot is set again or the VM closes.
void KvmVm::SetMemory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  kvm_userspace_memory_region region = {};
  region.slot = info[0].As<Napi::Number>().Uint32Value();
  region.flags = info[1].As<Napi::Number>().Uint32Value();
  region.guest_phys_addr = static_cast<uint64_t>(info[2].As<Napi::Number>().Int64Value());
  region.memory_size = static_cast<uint64_t>(info[4].As<Napi::Number>().Int64Value());
  if (region.memory_size != 0) {
    const Bytes bytes = BytesOf(info[3], "guest memory");
    if (region.memory_size > bytes.length) throw Napi::RangeError::New(env, "the slot is larger than its memory");
    region.userspace_addr = reinterpret_cast<uint64_t>(bytes.data);
  }
  if (ioctl(vm_fd_, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    throw SystemError(env, "KVM_SET_USER_MEMORY_REGION", errno);
  }
  memory_.erase(region.slot);
  if (region.memory_size != 0) memory_.emplace(region.slot, Napi::Reference<Napi::Value>::New(info[3], 1));
}

// dirtyLog(slot, bitmap): one bit a page, which the kernel clears as it reports it.
void KvmVm::DirtyLog(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  kvm_dirty_log log = {};
  log.slot = info[0].As<Napi::Number>().Uint32Value();
  const Bytes bitmap = BytesOf(info[1], "the bitmap");
  const auto memory = memory_.find(log.slot);
  if (memory == memory_.end()) throw Napi::RangeError::New(env, "there is no such memory slot");
  const size_t pages = (BytesOf(memory->second.Value(), "guest memory").length + 4095) / 4096;
  if (bitmap.length < (pages + 63) / 64 * 8) throw Napi::RangeError::New(env, "the bitmap is too short");
  log.dirty_bitmap = bitmap.data;
  if (ioctl(vm_fd_, KVM_GET_DIRTY_LOG, &log) < 0) throw SystemError(env, "KVM_GET_DIRTY_LOG", errno);
}

void KvmVm::Close(const Napi::CallbackInfo&) { CloseAll(); }

void KvmVm::CloseAll() {
  if (vm_fd_ >= 0) close(vm_fd_);
  if (kvm_fd_ >= 0) close(kvm_fd_);
  vm_fd_ = kvm_fd_ = -1;
  memory_.clear();
}

}  // namespace southbridge
