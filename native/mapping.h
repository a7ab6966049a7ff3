#pragma once
#include <napi.h>

#include <memory>

namespace southbridge {

/** An mmap'd stretch of memory that JavaScript sees as an ArrayBuffer. It goes away once, on request or with its last owner. */
class Mapping {
 public:
  Mapping(void* address, size_t size) : address_(address), size_(size) {}
  ~Mapping() { Unmap(); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* address() const { return address_; }
  size_t size() const { return size_; }
  void Unmap();

  /** An ArrayBuffer over the whole mapping, which keeps it alive. */
  static Napi::ArrayBuffer Expose(Napi::Env env, std::shared_ptr<Mapping> mapping);

 private:
  void* address_;
  size_t size_;
};

}  // namespace southbridge
