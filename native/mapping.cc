#include "mapping.h"

#include <sys/mman.h>

namespace southbridge {

void Mapping::Unmap() {
  if (address_ == nullptr) return;
  munmap(address_, size_);
  address_ = nullptr;
}

Napi::ArrayBuffer Mapping::Expose(Napi::Env env, std::shared_ptr<Mapping> mapping) {
  auto* owner = new std::shared_ptr<Mapping>(std::move(mapping));
  return Napi::ArrayBuffer::New(
      env, (*owner)->address(), (*owner)->size(),
      [](Napi::Env, void*, std::shared_ptr<Mapping>* held) { delete held; }, owner);
}

}  // namespace southbridge
