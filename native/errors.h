#pragma once
#include <napi.h>

namespace southbridge {

/** A JavaScript Error with Node's own fields: `code` (EINVAL), `errno` (negative) and `syscall`. */
Napi::Error SystemError(Napi::Env env, const char* syscall, int number);

/** The bytes of a typed array or DataView; a TypeError names `what` where the value is something else. */
struct Bytes {
  uint8_t* data;
  size_t length;
};
Bytes BytesOf(Napi::Value value, const char* what);

}  // namespace southbridge
