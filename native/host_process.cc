#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

int Int(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int32Value(); }

// threadCpuTime(): nanoseconds that this thread has spent on a CPU
Napi::Value ThreadCpuTime(const Napi::CallbackInfo& info) {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return Napi::Number::New(info.Env(), static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec));
}

// duplicate(fd, target): dup2, or with no target a new descriptor that exec closes
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  const int result = info[1].IsNumber() ? dup2(Int(info, 0), Int(info, 1)) : fcntl(Int(info, 0), F_DUPFD_CLOEXEC, 3);
  if (result < 0) throw SystemError(info.Env(), "dup", errno);
  return Napi::Number::New(info.Env(), result);
}

// statusFlags(fd, set?): the file's O_ flags
Napi::Value StatusFlags(const Napi::CallbackInfo& info) {
  if (info[1].IsNumber() && fcntl(Int(info, 0), F_SETFL, Int(info, 1)) < 0) throw SystemError(info.Env(), "fcntl", errno);
  const int flags = fcntl(Int(info, 0), F_GETFL);
  if (flags < 0) throw SystemError(info.Env(), "fcntl", errno);
  return Napi::Number::New(info.Env(), flags);
}

// closeOnExec(fd, on)
void CloseOnExec(const Napi::CallbackInfo& info) {
  if (fcntl(Int(info, 0), F_SETFD, info[1].ToBoolean() ? FD_CLOEXEC : 0) < 0) throw SystemError(info.Env(), "fcntl", errno);
}

// changeRoot(path): chroot, and chdir to its root
void ChangeRoot(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  if (chroot(path.c_str()) < 0 || chdir("/") < 0) throw SystemError(info.Env(), "chroot", errno);
}

// lockAllMemory(onFault)
void LockAllMemory(const Napi::CallbackInfo& info) {
  const int flags = MCL_CURRENT | MCL_FUTURE | (info[0].ToBoolean() ? MCL_ONFAULT : 0);
  if (mlockall(flags) < 0) throw SystemError(info.Env(), "mlockall", errno);
}

// addressOf(bytes)
Napi::Value AddressOf(const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(info.Env(), reinterpret_cast<uint64_t>(BytesOf(info[0], "bytes").data));
}

}  // namespace

void DefineProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("threadCpuTime", Napi::Function::New<ThreadCpuTime>(env, "threadCpuTime"));
  exports.Set("duplicate", Napi::Function::New<Duplicate>(env, "duplicate"));
  exports.Set("statusFlags", Napi::Function::New<StatusFlags>(env, "statusFlags"));
  exports.Set("closeOnExec", Napi::Function::New<CloseOnExec>(env, "closeOnExec"));
  exports.Set("changeRoot", Napi::Function::New<ChangeRoot>(env, "changeRoot"));
  exports.Set("addressOf", Napi::Function::New<AddressOf>(env, "addressOf"));
  exports.Set("lockAllMemory", Napi::Function::New<LockAllMemory>(env, "lockAllMemory"));
}

}  // namespace southbridge
