#include <errno.h>
#include <napi.h>
#include <node_api.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "errors.h"
#include "file_transfer.h"
#include "host.h"

namespace southbridge {

namespace {

/** As many requests as wait for the disk at a time. */
constexpr size_t kThreads = 16;

enum class Operation { kRead = 1, kWrite = 2, kDataSync = 3 };

struct Job {
  Operation operation;
  int fd;
  int64_t offset;
  std::vector<iovec> pieces;
};

int64_t Perform(const Job& job) {
  const int count = static_cast<int>(job.pieces.size());
  for (;;) {
    ssize_t result = -1;
    switch (job.operation) {
      case Operation::kRead:
        result = preadv(job.fd, job.pieces.data(), count, job.offset);
        break;
      case Operation::kWrite:
        result = pwritev(job.fd, job.pieces.data(), count, job.offset);
        break;
      case Operation::kDataSync:
        result = fdatasync(job.fd);
        break;
    }
    if (result >= 0 || errno != EINTR) return result < 0 ? -errno : result;
  }
}

/** What IoRing does, by threads of our own: for hosts that have no io_uring, or forbid it. Threads come as they are needed. */
class IoThreads : public Napi::ObjectWrap<IoThreads> {
 public:
  // new IoThreads(slots, done: Int32Array of slot and result in turn, twice as long as there are slots)
  explicit IoThreads(const Napi::CallbackInfo& info) : Napi::ObjectWrap<IoThreads>(info) {
    const Napi::Env env = info.Env();
    jobs_.resize(info[0].As<Napi::Number>().Uint32Value());
    auto done = info[1].As<Napi::Int32Array>();
    if (done.ElementLength() < 2 * jobs_.size()) throw Napi::TypeError::New(env, "the results need room");
    done_ = Napi::Persistent(done.As<Napi::Object>());
    results_ = done.Data();
    fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd_ < 0) throw SystemError(env, "eventfd", errno);
  }

  ~IoThreads() override { Stop(); }

  Napi::Value Fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_); }

  // submit(op, slot, fd, memory, spans, count, offset): kept until enter(). False where the arguments are none.
  static napi_value Submit(napi_env env, napi_callback_info info) {
    size_t argc = 7;
    napi_value argv[7], self;
    napi_get_cb_info(env, info, &argc, argv, &self, nullptr);
    void* data = nullptr;
    napi_unwrap(env, self, &data);
    const bool taken = data != nullptr && static_cast<IoThreads*>(data)->Take(env, argv);
    napi_value value;
    napi_get_boolean(env, taken, &value);
    return value;
  }

  // enter(): hands what was submitted to the threads. Returns 0 or a negative error number.
  Napi::Value Enter(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), -HandOver()); }

  // wait(): hands over what was submitted, and returns when something is there to reap.
  void Wait(const Napi::CallbackInfo& info) {
    const int error = HandOver();
    if (error != 0) throw SystemError(info.Env(), "pthread_create", error);
    std::unique_lock<std::mutex> lock(mutex_);
    done_some_.wait(lock, [this] { return stopping_ || !finished_.empty(); });
  }

  // reap(): what has finished is in the results; returns how many.
  Napi::Value Reap(const Napi::CallbackInfo& info) {
    std::vector<std::pair<uint32_t, int32_t>> finished;
    uint64_t count;
    while (read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      finished.swap(finished_);
    }
    for (size_t index = 0; index < finished.size(); index++) {
      results_[2 * index] = static_cast<int32_t>(finished[index].first);
      results_[2 * index + 1] = finished[index].second;
    }
    return Napi::Number::New(info.Env(), static_cast<double>(finished.size()));
  }

  void Close(const Napi::CallbackInfo&) { Stop(); }

 private:
  /** Returns an error number. */
  int HandOver() {
    int error = 0;
    if (!submitted_.empty() && fd_ >= 0) {
      size_t wanted;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        waiting_.insert(waiting_.end(), submitted_.begin(), submitted_.end());
        wanted = waiting_.size() > idle_ ? waiting_.size() - idle_ : 0;
      }
      submitted_.clear();
      for (; wanted > 0 && threads_.size() < kThreads && error == 0; wanted--) error = Spawn();
      work_.notify_all();
      // One thread is enough to get on.
      if (!threads_.empty()) error = 0;
    }
    return error;
  }

  bool Take(napi_env env, const napi_value* argv) {
    int32_t operation = 0, fd = -1;
    uint32_t slot = 0;
    napi_get_value_int32(env, argv[0], &operation);
    napi_get_value_uint32(env, argv[1], &slot);
    napi_get_value_int32(env, argv[2], &fd);
    if (fd_ < 0 || slot >= jobs_.size()) return false;
    // Nobody else looks at a slot that is free.
    Job& job = jobs_[slot];
    job.operation = static_cast<Operation>(operation);
    job.fd = fd;
    job.offset = 0;
    job.pieces.clear();
    if (job.operation != Operation::kDataSync) {
      iovec taken[kMaxSpans];
      double* slept;
      const size_t count = TakeSpans(env, argv[3], argv[4], argv[5], taken, &slept);
      if (count == 0) return false;
      job.pieces.assign(taken, taken + count);
      napi_get_value_int64(env, argv[6], &job.offset);
    }
    submitted_.push_back(slot);
    return true;
  }

  /** Returns an error number. */
  int Spawn() {
    // The process's signals are for Node's threads: these take none.
    sigset_t all, previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    int error = 0;
    try {
      threads_.emplace_back(&IoThreads::Work, this);
      pthread_setname_np(threads_.back().native_handle(), "sb-io");
    } catch (const std::system_error& failure) {
      error = failure.code().value();
    }
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
    return error;
  }

  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      idle_++;
      work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      idle_--;
      if (stopping_) return;
      const uint32_t slot = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      const auto result = static_cast<int32_t>(Perform(jobs_[slot]));
      lock.lock();
      finished_.emplace_back(slot, result);
      done_some_.notify_one();
      if (finished_.size() > 1) continue;
      const uint64_t one = 1;
      while (write(fd_, &one, sizeof one) < 0 && errno == EINTR) {
      }
    }
  }

  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  int fd_ = -1;
  std::vector<Job> jobs_;
  std::vector<uint32_t> submitted_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable work_, done_some_;
  std::deque<uint32_t> waiting_;
  std::vector<std::pair<uint32_t, int32_t>> finished_;
  size_t idle_ = 0;
  bool stopping_ = false;
  Napi::ObjectReference done_;
  int32_t* results_ = nullptr;
};

}  // namespace

Napi::Function DefineIoThreads(Napi::Env env) {
  Napi::Function type = IoThreads::DefineClass(
      env, "IoThreads",
      {IoThreads::InstanceAccessor<&IoThreads::Fd>("fd"), IoThreads::InstanceMethod<&IoThreads::Enter>("enter"),
       IoThreads::InstanceMethod<&IoThreads::Wait>("wait"), IoThreads::InstanceMethod<&IoThreads::Reap>("reap"), IoThreads::InstanceMethod<&IoThreads::Close>("close")});
  napi_value submit;
  napi_create_function(env, "submit", NAPI_AUTO_LENGTH, IoThreads::Submit, nullptr, &submit);
  type.Get("prototype").As<Napi::Object>().Set("submit", Napi::Value(env, submit));
  return type;
}

}  // namespace southbridge
