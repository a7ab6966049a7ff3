#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

/**
 * A thread that does nothing but be there: what tools see, name and bind to host CPUs, in place of a thread that has more than
 * one task. The thread that does the work takes over where it may run.
 */
class StandInThread : public Napi::ObjectWrap<StandInThread> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "StandInThread",
                       {InstanceAccessor<&StandInThread::Id>("id"), InstanceMethod<&StandInThread::Follow>("follow"),
                        InstanceMethod<&StandInThread::Close>("close")});
  }

  // StandInThread(name): at most 15 bytes of it are kept
  explicit StandInThread(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    const std::string name = info[0].As<Napi::String>().Utf8Value().substr(0, 15);
    sigset_t all, previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    try {
      thread_ = std::thread([this, name] { Main(name); });
    } catch (const std::system_error& failure) {
      pthread_sigmask(SIG_SETMASK, &previous, nullptr);
      throw SystemError(info.Env(), "pthread_create", failure.code().value());
    }
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return id_ != 0; });
    sched_getaffinity(id_, sizeof bound_, &bound_);
  }

  ~StandInThread() { Stop(); }

 private:
  void Main(const std::string& name) {
    pthread_setname_np(pthread_self(), name.c_str());
    std::unique_lock<std::mutex> lock(mutex_);
    id_ = static_cast<pid_t>(syscall(SYS_gettid));
    changed_.notify_all();
    changed_.wait(lock, [this] { return quit_; });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      quit_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  Napi::Value Id(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), id_); }

  void Follow(const Napi::CallbackInfo& info) {
    cpu_set_t now;
    if (!thread_.joinable() || sched_getaffinity(id_, sizeof now, &now) < 0 || CPU_EQUAL(&now, &bound_)) return;
    bound_ = now;
    if (sched_setaffinity(0, sizeof now, &now) < 0) throw SystemError(info.Env(), "sched_setaffinity", errno);
  }

  void Close(const Napi::CallbackInfo& info) { Stop(); }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool quit_ = false;
  pid_t id_ = 0;
  cpu_set_t bound_;
  std::thread thread_;
};

}  // namespace

Napi::Function DefineStandInThread(Napi::Env env) { return StandInThread::Define(env); }

}  // namespace southbridge
