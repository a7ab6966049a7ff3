#pragma once
#include <linux/kvm.h>
#include <napi.h>

#include <memory>

#include "mapping.h"

namespace southbridge {

class Scheduler;

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
  Napi::Value Complete(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  void CloseAll();

  int fd_ = -1;
  std::shared_ptr<Mapping> mapping_;
  Napi::Reference<Napi::ArrayBuffer> page_;
};

}  // namespace southbridge
