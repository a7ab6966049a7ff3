#pragma once
#include <napi.h>

#include <map>

namespace southbridge {

/** One KVM virtual machine: its two file descriptors and the guest memory that the kernel points into. */
class KvmVm : public Napi::ObjectWrap<KvmVm> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit KvmVm(const Napi::CallbackInfo& info);
  ~KvmVm() override { CloseAll(); }

  int vm_fd() const { return vm_fd_; }
  size_t run_size() const { return run_size_; }

 private:
  Napi::Value SystemIoctl(const Napi::CallbackInfo& info);
  Napi::Value Ioctl(const Napi::CallbackInfo& info);
  void SetMemory(const Napi::CallbackInfo& info);
  void DirtyLog(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  void CloseAll();

  int kvm_fd_ = -1;
  int vm_fd_ = -1;
  size_t run_size_ = 0;
  std::map<uint32_t, Napi::Reference<Napi::Value>> memory_;
};

/** `ioctl(fd, request, argument)` where the argument is nothing, a number, or bytes in the layout of <linux/kvm.h>. */
Napi::Value IoctlOn(const Napi::CallbackInfo& info, int fd);

}  // namespace southbridge
