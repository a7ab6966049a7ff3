#include "file_transfer.h"

#include <errno.h>
#include <node_api.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace southbridge {

namespace {

/** A call that takes longer may have slept, in nanoseconds. */
constexpr int64_t kSlowNs = 100000;

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/** How often this thread has given up the CPU by itself: it waited for something. Being preempted does not count. */
int64_t Sleeps() {
  rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

ssize_t Move(Transfer kind, int fd, const iovec* pieces, size_t count, int64_t offset) {
  switch (kind) {
    case Transfer::kReadCached:
      return preadv2(fd, pieces, static_cast<int>(count), offset, RWF_NOWAIT);
    case Transfer::kRead:
      return preadv(fd, pieces, static_cast<int>(count), offset);
    case Transfer::kWrite:
      return pwritev(fd, pieces, static_cast<int>(count), offset);
  }
  errno = EINVAL;
  return -1;
}

// transferNow(kind, fd, memory, spans, count, offset): bytes moved, or a negative error number. Nothing is allocated.
napi_value TransferNow(napi_env env, napi_callback_info info) {
  size_t argc = 6;
  napi_value argv[6];
  napi_get_cb_info(env, info, &argc, argv, nullptr, nullptr);
  int32_t kind = -1, fd = -1;
  int64_t offset = 0;
  napi_get_value_int32(env, argv[0], &kind);
  napi_get_value_int32(env, argv[1], &fd);
  napi_get_value_int64(env, argv[5], &offset);
  iovec pieces[kMaxSpans];
  double* slept;
  const size_t count = TakeSpans(env, argv[2], argv[3], argv[4], pieces, &slept);
  int64_t result = -EINVAL;
  if (count > 0) {
    const auto transfer = static_cast<Transfer>(kind);
    const bool may_sleep = transfer != Transfer::kReadCached;
    const int64_t sleeps = may_sleep ? Sleeps() : 0;
    const int64_t started = may_sleep ? NowNs() : 0;
    do result = Move(transfer, fd, pieces, count, offset);
    while (result < 0 && errno == EINTR);
    if (result < 0) result = -errno;
    *slept = may_sleep && NowNs() - started > kSlowNs && Sleeps() != sleeps ? 1 : 0;
  }
  napi_value value;
  napi_create_int64(env, result, &value);
  return value;
}

}  // namespace

size_t TakeSpans(napi_env env, napi_value memory, napi_value spans, napi_value count, iovec* pieces, double** slept) {
  napi_typedarray_type type;
  size_t bytes = 0, numbers = 0, offset;
  void* base = nullptr;
  void* table = nullptr;
  napi_value buffer;
  uint32_t wanted = 0;
  if (napi_get_typedarray_info(env, memory, &type, &bytes, &base, &buffer, &offset) != napi_ok ||
      type != napi_uint8_array ||
      napi_get_typedarray_info(env, spans, &type, &numbers, &table, &buffer, &offset) != napi_ok ||
      type != napi_float64_array || napi_get_value_uint32(env, count, &wanted) != napi_ok || wanted > kMaxSpans ||
      numbers < 2 * static_cast<size_t>(wanted) + 1) {
    return 0;
  }
  auto* pairs = static_cast<double*>(table);
  for (uint32_t index = 0; index < wanted; index++) {
    const double start = pairs[2 * index], length = pairs[2 * index + 1];
    if (!(start >= 0 && length >= 0 && start + length <= static_cast<double>(bytes))) return 0;
    pieces[index].iov_base = static_cast<uint8_t*>(base) + static_cast<size_t>(start);
    pieces[index].iov_len = static_cast<size_t>(length);
  }
  *slept = pairs + 2 * wanted;
  return wanted;
}

void DefineTransfers(Napi::Env env, Napi::Object exports) {
  napi_value function;
  napi_create_function(env, "transferNow", NAPI_AUTO_LENGTH, TransferNow, nullptr, &function);
  exports.Set("transferNow", Napi::Value(env, function));
}

}  // namespace southbridge
