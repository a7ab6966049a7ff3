#include "run.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "kvm_vcpu.h"
#include "scheduler.h"

namespace southbridge {

namespace {

struct Binding {
  Scheduler* scheduler;
  KvmVcpu* vcpu;
  Napi::ObjectReference scheduler_object;
  Napi::ObjectReference vcpu_object;
};

// The answer is in the kvm_run page, where JavaScript reads it anyway: no value is made for it.
napi_value Run(napi_env env, napi_callback_info info) {
  void* data;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  const auto* binding = static_cast<Binding*>(data);
  if (binding->vcpu->open()) binding->scheduler->Run(binding->vcpu);
  return nullptr;
}

}  // namespace

int EnterGuest(int vcpu_fd) { return ioctl(vcpu_fd, KVM_RUN, 0) == 0 ? 0 : errno; }

Napi::Value MakeRunFunction(Napi::Env env, Scheduler* scheduler, Napi::Object scheduler_object, KvmVcpu* vcpu,
                            Napi::Object vcpu_object) {
  auto* binding =
      new Binding{scheduler, vcpu, Napi::Persistent(scheduler_object), Napi::Persistent(vcpu_object)};
  napi_value function;
  napi_create_function(env, "run", NAPI_AUTO_LENGTH, Run, binding, &function);
  napi_add_finalizer(
      env, function, binding, [](napi_env, void* data, void*) { delete static_cast<Binding*>(data); }, nullptr, nullptr);
  return Napi::Value(env, function);
}

}  // namespace southbridge
