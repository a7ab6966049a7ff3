#include "slirp_library.h"

#include <dlfcn.h>

namespace southbridge::slirp {

namespace {

template <typename Function>
bool Find(void* handle, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(handle, name));
  return function != nullptr;
}

}  // namespace

const Library* OpenLibrary(const char** error) {
  static Library library;
  static bool opened = false;
  if (opened) return &library;
  void* handle = dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    *error = dlerror();
    return nullptr;
  }
  // g_free: what connection_info returns is GLib's, which libslirp has loaded.
  const bool complete =
      Find(handle, "slirp_new", library.create) && Find(handle, "slirp_cleanup", library.cleanup) &&
      Find(handle, "slirp_pollfds_fill", library.pollfds_fill) && Find(handle, "slirp_pollfds_poll", library.pollfds_poll) &&
      Find(handle, "slirp_input", library.input) && Find(handle, "slirp_add_hostfwd", library.add_hostfwd) &&
      Find(handle, "slirp_remove_hostfwd", library.remove_hostfwd) && Find(handle, "slirp_add_exec", library.add_exec) &&
      Find(handle, "slirp_add_unix", library.add_unix) && Find(handle, "slirp_connection_info", library.connection_info) &&
      Find(handle, "slirp_version_string", library.version_string) && Find(handle, "g_free", library.free);
  if (!complete) {
    *error = "libslirp.so.0 is older than 4.1";
    dlclose(handle);
    return nullptr;
  }
  opened = true;
  return &library;
}

}  // namespace southbridge::slirp
