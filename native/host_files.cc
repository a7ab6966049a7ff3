#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "errors.h"
#include "host.h"
#include "mapping.h"

namespace southbridge {

namespace {

int64_t Int(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int64Value(); }

Napi::Value NumberOrThrow(Napi::Env env, const char* syscall, int64_t result) {
  if (result < 0) throw SystemError(env, syscall, errno);
  return Napi::Number::New(env, static_cast<double>(result));
}

// fallocate(fd, mode, offset, length)
void Fallocate(const Napi::CallbackInfo& info) {
  int result;
  do result = fallocate(static_cast<int>(Int(info, 0)), static_cast<int>(Int(info, 1)), Int(info, 2), Int(info, 3));
  while (result < 0 && errno == EINTR);
  NumberOrThrow(info.Env(), "fallocate", result);
}

// seek(fd, offset, whence): the resulting offset, or -1 where SEEK_DATA finds no more data
Napi::Value Seek(const Napi::CallbackInfo& info) {
  const off_t result = lseek(static_cast<int>(Int(info, 0)), Int(info, 1), static_cast<int>(Int(info, 2)));
  if (result < 0 && errno == ENXIO) return Napi::Number::New(info.Env(), -1);
  return NumberOrThrow(info.Env(), "lseek", result);
}

// ofdLock(fd, type, start, length): false where someone else holds a lock in the way
Napi::Value OfdLock(const Napi::CallbackInfo& info) {
  struct flock lock = {};
  lock.l_type = static_cast<short>(Int(info, 1));
  lock.l_whence = SEEK_SET;
  lock.l_start = Int(info, 2);
  lock.l_len = Int(info, 3);
  if (fcntl(static_cast<int>(Int(info, 0)), F_OFD_SETLK, &lock) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EAGAIN || errno == EACCES) return Napi::Boolean::New(info.Env(), false);
  throw SystemError(info.Env(), "fcntl", errno);
}

// ofdTest(fd, type, start, length): whether such a lock could be had
Napi::Value OfdTest(const Napi::CallbackInfo& info) {
  struct flock lock = {};
  lock.l_type = static_cast<short>(Int(info, 1));
  lock.l_whence = SEEK_SET;
  lock.l_start = Int(info, 2);
  lock.l_len = Int(info, 3);
  if (fcntl(static_cast<int>(Int(info, 0)), F_OFD_GETLK, &lock) < 0) throw SystemError(info.Env(), "fcntl", errno);
  return Napi::Boolean::New(info.Env(), lock.l_type == F_UNLCK);
}

Napi::Value EventFd(const Napi::CallbackInfo& info) {
  return NumberOrThrow(info.Env(), "eventfd", eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

// memfdCreate(name, size)
Napi::Value MemfdCreate(const Napi::CallbackInfo& info) {
  const std::string name = info[0].As<Napi::String>();
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw SystemError(info.Env(), "memfd_create", errno);
  if (ftruncate(fd, Int(info, 1)) < 0) {
    const int error = errno;
    close(fd);
    throw SystemError(info.Env(), "ftruncate", error);
  }
  return Napi::Number::New(info.Env(), fd);
}

// map(fd, offset, length, shared, writable): an ArrayBuffer over the file, or with fd -1 over fresh zeroed pages
Napi::Value Map(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = static_cast<int>(Int(info, 0));
  const auto length = static_cast<size_t>(Int(info, 2));
  const int flags = (info[3].ToBoolean() ? MAP_SHARED : MAP_PRIVATE) | (fd < 0 ? MAP_ANONYMOUS : 0);
  const int protection = PROT_READ | (info[4].ToBoolean() ? PROT_WRITE : 0);
  void* address = mmap(nullptr, length, protection, flags, fd, Int(info, 1));
  if (address == MAP_FAILED) throw SystemError(env, "mmap", errno);
  return Mapping::Expose(env, std::make_shared<Mapping>(address, length));
}

// mapOver(bytes, fd, offset, shared): puts pages of a file in the place of memory; both whole pages
void MapOver(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[0], "the memory");
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  if (bytes.length == 0 || reinterpret_cast<uintptr_t>(bytes.data) % page != 0 || bytes.length % page != 0) {
    throw Napi::RangeError::New(env, "the memory is not whole pages");
  }
  const int flags = MAP_FIXED | (info[3].ToBoolean() ? MAP_SHARED : MAP_PRIVATE);
  if (mmap(bytes.data, bytes.length, PROT_READ | PROT_WRITE, flags, static_cast<int>(Int(info, 1)), Int(info, 2)) == MAP_FAILED) {
    throw SystemError(env, "mmap", errno);
  }
}

// lockMemory(bytes)
void LockMemory(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[0], "the memory");
  NumberOrThrow(info.Env(), "mlock", mlock(bytes.data, bytes.length));
}

// adviseMemory(bytes, advice): whole pages only
void AdviseMemory(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[0], "the memory");
  NumberOrThrow(info.Env(), "madvise", madvise(bytes.data, bytes.length, static_cast<int>(Int(info, 1))));
}

// blockDevice(fd): [bytes, logical block size, physical block size]
Napi::Value BlockDevice(const Napi::CallbackInfo& info) {
  const int fd = static_cast<int>(Int(info, 0));
  uint64_t size = 0;
  int logical = 0;
  unsigned physical = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0 || ioctl(fd, BLKPBSZGET, &physical) < 0) {
    throw SystemError(info.Env(), "ioctl", errno);
  }
  Napi::Array result = Napi::Array::New(info.Env(), 3);
  result.Set(0u, Napi::Number::New(info.Env(), static_cast<double>(size)));
  result.Set(1u, Napi::Number::New(info.Env(), logical));
  result.Set(2u, Napi::Number::New(info.Env(), physical));
  return result;
}

}  // namespace

void DefineFiles(Napi::Env env, Napi::Object exports) {
  exports.Set("fallocate", Napi::Function::New<Fallocate>(env, "fallocate"));
  exports.Set("seek", Napi::Function::New<Seek>(env, "seek"));
  exports.Set("ofdLock", Napi::Function::New<OfdLock>(env, "ofdLock"));
  exports.Set("ofdTest", Napi::Function::New<OfdTest>(env, "ofdTest"));
  exports.Set("eventfd", Napi::Function::New<EventFd>(env, "eventfd"));
  exports.Set("memfdCreate", Napi::Function::New<MemfdCreate>(env, "memfdCreate"));
  exports.Set("map", Napi::Function::New<Map>(env, "map"));
  exports.Set("mapOver", Napi::Function::New<MapOver>(env, "mapOver"));
  exports.Set("lockMemory", Napi::Function::New<LockMemory>(env, "lockMemory"));
  exports.Set("adviseMemory", Napi::Function::New<AdviseMemory>(env, "adviseMemory"));
  exports.Set("blockDevice", Napi::Function::New<BlockDevice>(env, "blockDevice"));
}

}  // namespace southbridge
