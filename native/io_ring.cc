#include <errno.h>
#include <linux/io_uring.h>
#include <napi.h>
#include <node_api.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "errors.h"
#include "file_transfer.h"
#include "host.h"

namespace southbridge {

namespace {

enum class RingOp { kRead = 1, kWrite = 2, kDataSync = 3 };

uint32_t Load(const uint32_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
void Store(uint32_t* word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/**
 * io_uring(7): requests that are queued one by one, handed to the kernel with one system call, and finished without one. A
 * request is named by its slot; whoever submits it keeps its memory where it is until it is done. The descriptor becomes
 * readable when there is something to reap.
 */
class IoRing : public Napi::ObjectWrap<IoRing> {
 public:
  // new IoRing(slots, done: Int32Array of slot and result in turn, twice as long as there are slots)
  explicit IoRing(const Napi::CallbackInfo& info) : Napi::ObjectWrap<IoRing>(info) {
    const Napi::Env env = info.Env();
    slots_ = info[0].As<Napi::Number>().Uint32Value();
    auto done = info[1].As<Napi::Int32Array>();
    if (done.ElementLength() < 2 * static_cast<size_t>(slots_)) throw Napi::TypeError::New(env, "the results need room");
    done_ = Napi::Persistent(done.As<Napi::Object>());
    results_ = done.Data();
    io_uring_params params = {};
    fd_ = static_cast<int>(syscall(SYS_io_uring_setup, slots_, &params));
    if (fd_ < 0) throw SystemError(env, "io_uring_setup", errno);
    if (!Map(params)) {
      const int error = errno;
      Release();
      throw SystemError(env, "mmap", error);
    }
    pieces_.resize(slots_);
  }

  ~IoRing() override { Release(); }

  Napi::Value Fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fd_); }

  // submit(op, slot, fd, memory, spans, count, offset): queued. False where the arguments are none.
  static napi_value Submit(napi_env env, napi_callback_info info) {
    size_t argc = 7;
    napi_value argv[7], self;
    napi_get_cb_info(env, info, &argc, argv, &self, nullptr);
    void* data = nullptr;
    napi_unwrap(env, self, &data);
    const bool queued = data != nullptr && static_cast<IoRing*>(data)->Queue(env, argv);
    napi_value value;
    napi_get_boolean(env, queued, &value);
    return value;
  }

  // enter(): hands what is queued to the kernel. What it would not take stays queued. Returns 0 or a negative error number.
  Napi::Value Enter(const Napi::CallbackInfo& info) {
    int result = 0;
    while (queued_ > 0 && fd_ >= 0) {
      const long taken = syscall(SYS_io_uring_enter, fd_, queued_, 0, 0, nullptr, 0);
      if (taken < 0 && errno == EINTR) continue;
      if (taken <= 0) {
        result = taken < 0 ? -errno : -EAGAIN;
        break;
      }
      queued_ -= static_cast<uint32_t>(taken);
    }
    return Napi::Number::New(info.Env(), result);
  }

  // wait(): hands over what is queued, and returns when something is there to reap.
  void Wait(const Napi::CallbackInfo& info) {
    while (fd_ >= 0 && *cq_head_ == Load(cq_tail_)) {
      const long taken = syscall(SYS_io_uring_enter, fd_, queued_, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
      if (taken >= 0) queued_ -= static_cast<uint32_t>(taken);
      else if (errno != EINTR && errno != EAGAIN && errno != EBUSY) throw SystemError(info.Env(), "io_uring_enter", errno);
    }
  }

  // reap(): what has finished is in the results; returns how many.
  Napi::Value Reap(const Napi::CallbackInfo& info) {
    uint32_t count = 0;
    if (fd_ >= 0) {
      uint32_t head = *cq_head_;
      for (const uint32_t tail = Load(cq_tail_); head != tail && count < slots_; head++, count++) {
        const io_uring_cqe& entry = cqes_[head & cq_mask_];
        results_[2 * count] = static_cast<int32_t>(entry.user_data);
        results_[2 * count + 1] = entry.res;
      }
      Store(cq_head_, head);
    }
    return Napi::Number::New(info.Env(), count);
  }

  void Close(const Napi::CallbackInfo&) { Release(); }

 private:
  bool Map(const io_uring_params& params) {
    sq_bytes_ = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    cq_bytes_ = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    sqe_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
    sq_ = At(sq_bytes_, IORING_OFF_SQ_RING);
    cq_ = At(cq_bytes_, IORING_OFF_CQ_RING);
    sqes_ = static_cast<io_uring_sqe*>(At(sqe_bytes_, IORING_OFF_SQES));
    if (sq_ == nullptr || cq_ == nullptr || sqes_ == nullptr) return false;
    const auto in_sq = [this](uint32_t offset) { return reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(sq_) + offset); };
    const auto in_cq = [this](uint32_t offset) { return reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(cq_) + offset); };
    sq_tail_ = in_sq(params.sq_off.tail);
    sq_array_ = in_sq(params.sq_off.array);
    sq_mask_ = *in_sq(params.sq_off.ring_mask);
    cq_head_ = in_cq(params.cq_off.head);
    cq_tail_ = in_cq(params.cq_off.tail);
    cq_mask_ = *in_cq(params.cq_off.ring_mask);
    cqes_ = reinterpret_cast<io_uring_cqe*>(in_cq(params.cq_off.cqes));
    return true;
  }

  void* At(size_t bytes, off_t offset) {
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, offset);
    return address == MAP_FAILED ? nullptr : address;
  }

  bool Queue(napi_env env, const napi_value* argv) {
    int32_t op = 0, fd = -1;
    uint32_t slot = 0;
    int64_t offset = 0;
    napi_get_value_int32(env, argv[0], &op);
    napi_get_value_uint32(env, argv[1], &slot);
    napi_get_value_int32(env, argv[2], &fd);
    if (fd_ < 0 || slot >= slots_ || queued_ >= slots_) return false;
    const uint32_t tail = *sq_tail_;
    io_uring_sqe& entry = sqes_[tail & sq_mask_];
    entry = {};
    entry.fd = fd;
    entry.user_data = slot;
    if (static_cast<RingOp>(op) == RingOp::kDataSync) {
      entry.opcode = IORING_OP_FSYNC;
      entry.fsync_flags = IORING_FSYNC_DATASYNC;
    } else {
      iovec taken[kMaxSpans];
      double* slept;
      const size_t count = TakeSpans(env, argv[3], argv[4], argv[5], taken, &slept);
      if (count == 0) return false;
      napi_get_value_int64(env, argv[6], &offset);
      // The kernel may look at the vector for as long as the request lasts.
      std::vector<iovec>& pieces = pieces_[slot];
      pieces.assign(taken, taken + count);
      entry.opcode = static_cast<RingOp>(op) == RingOp::kWrite ? IORING_OP_WRITEV : IORING_OP_READV;
      entry.addr = reinterpret_cast<uint64_t>(pieces.data());
      entry.len = static_cast<uint32_t>(count);
      entry.off = static_cast<uint64_t>(offset);
    }
    sq_array_[tail & sq_mask_] = tail & sq_mask_;
    Store(sq_tail_, tail + 1);
    queued_++;
    return true;
  }

  void Release() {
    if (sq_ != nullptr) munmap(sq_, sq_bytes_);
    if (cq_ != nullptr) munmap(cq_, cq_bytes_);
    if (sqes_ != nullptr) munmap(sqes_, sqe_bytes_);
    sq_ = cq_ = sqes_ = nullptr;
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  int fd_ = -1;
  uint32_t slots_ = 0;
  uint32_t queued_ = 0;
  void* sq_ = nullptr;
  void* cq_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  size_t sq_bytes_ = 0, cq_bytes_ = 0, sqe_bytes_ = 0;
  uint32_t *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  uint32_t sq_mask_ = 0, cq_mask_ = 0;
  io_uring_cqe* cqes_ = nullptr;
  std::vector<std::vector<iovec>> pieces_;
  Napi::ObjectReference done_;
  int32_t* results_ = nullptr;
};

}  // namespace

Napi::Function DefineIoRing(Napi::Env env) {
  Napi::Function type = IoRing::DefineClass(
      env, "IoRing",
      {IoRing::InstanceAccessor<&IoRing::Fd>("fd"), IoRing::InstanceMethod<&IoRing::Enter>("enter"),
       IoRing::InstanceMethod<&IoRing::Wait>("wait"), IoRing::InstanceMethod<&IoRing::Reap>("reap"), IoRing::InstanceMethod<&IoRing::Close>("close")});
  // By raw Node-API: seven wrapped values a request would cost more than the request.
  napi_value submit;
  napi_create_function(env, "submit", NAPI_AUTO_LENGTH, IoRing::Submit, nullptr, &submit);
  type.Get("prototype").As<Napi::Object>().Set("submit", Napi::Value(env, submit));
  return type;
}

}  // namespace southbridge
