#include <napi.h>

#include "host.h"
#include "kvm_vcpu.h"
#include "kvm_vm.h"
#include "scheduler.h"
#include "slirp.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("KvmVm", southbridge::KvmVm::Define(env));
  exports.Set("KvmVcpu", southbridge::KvmVcpu::Define(env));
  exports.Set("Scheduler", southbridge::Scheduler::Define(env));
  southbridge::DefineFiles(env, exports);
  southbridge::DefineTree(env, exports);
  southbridge::DefineTransfers(env, exports);
  southbridge::DefineTerminals(env, exports);
  southbridge::DefineSockets(env, exports);
  southbridge::DefineDatagrams(env, exports);
  southbridge::DefineProcess(env, exports);
  southbridge::DefineDisassembler(env, exports);
  southbridge::DefineSandbox(env, exports);
  southbridge::DefineZstd(env, exports);
  exports.Set("FdPoll", southbridge::DefineFdPoll(env));
  exports.Set("IoRing", southbridge::DefineIoRing(env));
  exports.Set("IoThreads", southbridge::DefineIoThreads(env));
  exports.Set("StandInThread", southbridge::DefineStandInThread(env));
  exports.Set("SlirpStack", southbridge::DefineSlirp(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(southbridge, Init)
