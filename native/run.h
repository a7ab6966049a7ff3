#pragma once
#include <napi.h>

namespace southbridge {

class KvmVcpu;
class Scheduler;

/** One KVM_RUN: 0, or its errno. */
int EnterGuest(int vcpu_fd);

/** The `run()` of one vCPU in raw Node-API, which is 20 ns a call cheaper than through the wrapper. */
Napi::Value MakeRunFunction(Napi::Env env, Scheduler* scheduler, Napi::Object scheduler_object, KvmVcpu* vcpu,
                            Napi::Object vcpu_object);

/** The real-time signal that brings a thread back out of KVM_RUN; its handler does nothing. */
int KickSignal();
void InstallKickHandler();

}  // namespace southbridge
