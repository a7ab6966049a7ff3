#pragma once
#include <linux/kvm.h>
#include <napi.h>

#include <memory>

#include "mapping.h"
#include "vcpu_thread.h"

namespace southbridge {

/** One virtual CPU: its file descriptor and the kvm_run page that it shares with the kernel and with JavaScript. */
class KvmVcpu : public Napi::ObjectWrap<KvmVcpu> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit KvmVcpu(const Napi::CallbackInfo& info);
  ~KvmVcpu() override { CloseAll(); }

  int fd() const { return fd_; }
  kvm_run* run() const { return static_cast<kvm_run*>(mapping_->address()); }
  bool open() const { return fd_ >= 0; }


 private:
  Napi::Value Ioctl(const Napi::CallbackInfo& info);
  Napi::Value Page(const Napi::CallbackInfo& info);
  Napi::Value ThreadId(const Napi::CallbackInfo& info);
  Napi::Value Complete(const Napi::CallbackInfo& info);
  void StartThread(const Napi::CallbackInfo& info);
  void Resume(const Napi::CallbackInfo& info);
  void Park(const Napi::CallbackInfo& info);
  Napi::Value AwaitParked(const Napi::CallbackInfo& info);
  void Unpark(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  void CloseAll();

  int fd_ = -1;
  int index_ = 0;
  std::shared_ptr<Mapping> mapping_;
  Napi::Reference<Napi::ArrayBuffer> page_;
  std::unique_ptr<VcpuThread> thread_;
};

}  // namespace southbridge
