#pragma once
#include <napi.h>
#include <sys/uio.h>

namespace southbridge {

/** What is moved between a file and memory; the numbers are JavaScript's too. */
enum class Transfer {
  /** What the page cache has: EAGAIN where the disk would have to be asked. */
  kReadCached = 0,
  kRead = 1,
  kWrite = 2,
};

/** Pieces of memory that one call moves. */
constexpr size_t kMaxSpans = 512;

/**
 * The pieces of memory that JavaScript names: pairs of start and length within a Uint8Array. Returns how many, or 0 where the
 * arguments are none. `slept` is the place behind them, for an answer.
 */
size_t TakeSpans(napi_env env, napi_value memory, napi_value spans, napi_value count, iovec* pieces, double** slept);

}  // namespace southbridge
