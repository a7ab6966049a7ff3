#include "errors.h"

#include <string.h>
#include <uv.h>

#include <string>

namespace southbridge {

Napi::Error SystemError(Napi::Env env, const char* syscall, int number) {
  Napi::Error error = Napi::Error::New(env, std::string(syscall) + ": " + strerror(number));
  error.Set("code", Napi::String::New(env, uv_err_name(-number)));
  error.Set("errno", Napi::Number::New(env, -number));
  error.Set("syscall", Napi::String::New(env, syscall));
  return error;
}

Bytes BytesOf(Napi::Value value, const char* what) {
  void* data = nullptr;
  size_t length = 0;
  if (value.IsTypedArray()) {
    napi_typedarray_type type;
    napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr);
    length = value.As<Napi::TypedArray>().ByteLength();
  } else if (value.IsDataView()) {
    napi_get_dataview_info(value.Env(), value, &length, &data, nullptr, nullptr);
  } else {
    throw Napi::TypeError::New(value.Env(), std::string(what) + " must be a typed array or a DataView");
  }
  return {static_cast<uint8_t*>(data), length};
}

}  // namespace southbridge
