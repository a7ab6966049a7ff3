// zstd frames by Debian's libzstd, which is opened when the first compressed cluster or packet of pages asks for it.
#include <dlfcn.h>
#include <stdint.h>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

// The part of libzstd's interface in use (its zstd.h, stable since 1.4), declared here so that the addon builds and loads without it.
struct Context;
struct Source {
  const void* bytes;
  size_t size;
  size_t at;
};
struct Target {
  void* bytes;
  size_t size;
  size_t at;
};

struct Library {
  Context* (*create_compressor)();
  size_t (*set_parameter)(Context*, int parameter, int value);
  size_t (*compress)(Context*, void* target, size_t capacity, const void* source, size_t size);
  Context* (*create_decompressor)();
  size_t (*reset_decompressor)(Context*, int directive);
  size_t (*decompress)(Context*, Target*, Source*);
  unsigned (*is_error)(size_t);
};

constexpr int kCompressionLevel = 100;
constexpr int kResetSession = 1;

template <typename Function>
bool Find(void* handle, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(handle, name));
  return function != nullptr;
}

/** The library, opened once; throws where this host does not have it. */
const Library& OpenLibrary(Napi::Env env) {
  static Library library;
  static bool opened = false;
  if (opened) return library;
  void* handle = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Napi::Error::New(env, dlerror());
  const bool complete = Find(handle, "ZSTD_createCCtx", library.create_compressor) &&
                        Find(handle, "ZSTD_CCtx_setParameter", library.set_parameter) &&
                        Find(handle, "ZSTD_compress2", library.compress) &&
                        Find(handle, "ZSTD_createDCtx", library.create_decompressor) &&
                        Find(handle, "ZSTD_DCtx_reset", library.reset_decompressor) &&
                        Find(handle, "ZSTD_decompressStream", library.decompress) &&
                        Find(handle, "ZSTD_isError", library.is_error);
  if (!complete) {
    dlclose(handle);
    throw Napi::Error::New(env, "libzstd.so.1 is older than 1.4");
  }
  opened = true;
  return library;
}

// One of each for a thread: they keep their tables from cluster to cluster.
thread_local Context* compressor = nullptr;
thread_local Context* decompressor = nullptr;

// zstdCompress(source, target, level): the bytes written, or 0 where the frame does not fit; level 0 is the library's own
Napi::Value Compress(const Napi::CallbackInfo& info) {
  const Library& library = OpenLibrary(info.Env());
  const Bytes source = BytesOf(info[0], "source");
  const Bytes target = BytesOf(info[1], "target");
  if (compressor == nullptr) compressor = library.create_compressor();
  library.set_parameter(compressor, kCompressionLevel, info[2].ToNumber().Int32Value());
  const size_t size = library.compress(compressor, target.data, target.length, source.data, source.length);
  return Napi::Number::New(info.Env(), library.is_error(size) ? 0 : static_cast<double>(size));
}

// zstdDecompress(source, target): whether what begins at the source fills the target; what follows it is not looked at
Napi::Value Decompress(const Napi::CallbackInfo& info) {
  const Library& library = OpenLibrary(info.Env());
  const Bytes source = BytesOf(info[0], "source");
  const Bytes target = BytesOf(info[1], "target");
  if (decompressor == nullptr) decompressor = library.create_decompressor();
  library.reset_decompressor(decompressor, kResetSession);
  Source from = {source.data, source.length, 0};
  Target to = {target.data, target.length, 0};
  while (to.at < to.size) {
    const size_t read = from.at, written = to.at;
    if (library.is_error(library.decompress(decompressor, &to, &from))) break;
    if (from.at == read && to.at == written) break;
  }
  return Napi::Boolean::New(info.Env(), to.at == to.size);
}

}  // namespace

void DefineZstd(Napi::Env env, Napi::Object exports) {
  exports.Set("zstdCompress", Napi::Function::New(env, Compress, "zstdCompress"));
  exports.Set("zstdDecompress", Napi::Function::New(env, Decompress, "zstdDecompress"));
}

}  // namespace southbridge
