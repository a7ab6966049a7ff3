#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>

#include "errors.h"
#include "host.h"

namespace southbridge {

// Calls on what is below an open folder, for serving it to a guest. A path is bytes (one character each), its parts
// separated by single slashes, "" is the folder itself. No part is followed where it is a symbolic link, and none may
// be "." or "..": whatever the guest names or replaces meanwhile, nothing outside is reached. All answer with a number:
// the result, or a negative errno.

namespace {

int Int(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int32Value(); }
uint32_t Uint(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Uint32Value(); }
double Double(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }

Napi::Value Answer(const Napi::CallbackInfo& info, int64_t result) {
  return Napi::Number::New(info.Env(), static_cast<double>(result < 0 ? -errno : result));
}

Napi::Value Refuse(const Napi::CallbackInfo& info, int error) { return Napi::Number::New(info.Env(), -error); }

std::string Text(const Napi::CallbackInfo& info, size_t index) {
  size_t length = 0;
  std::string text;
  if (napi_get_value_string_latin1(info.Env(), info[index], nullptr, 0, &length) != napi_ok) {
    throw Napi::TypeError::New(info.Env(), "a path or a name is expected");
  }
  text.resize(length);
  napi_get_value_string_latin1(info.Env(), info[index], text.data(), length + 1, &length);
  return text;
}

bool GoodPart(const std::string& part) {
  return !part.empty() && part != "." && part != ".." && part.size() <= NAME_MAX && part.find('\0') == std::string::npos;
}

/** The folder that a path's last part is in, and that part. */
class Place {
 public:
  Place(int root, const std::string& path) : folder_(root) {
    if (path.empty()) {
      name_ = ".";
      return;
    }
    size_t from = 0;
    for (;;) {
      const size_t slash = path.find('/', from);
      name_ = path.substr(from, slash == std::string::npos ? std::string::npos : slash - from);
      if (!GoodPart(name_)) {
        Fail(ENOENT);
        return;
      }
      if (slash == std::string::npos) return;
      const int next = openat(folder_, name_.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (next < 0) {
        Fail(errno);
        return;
      }
      Close();
      folder_ = next;
      owned_ = true;
      from = slash + 1;
    }
  }
  ~Place() { Close(); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  int error() const { return error_; }
  int folder() const { return folder_; }
  const char* name() const { return name_.c_str(); }
  bool root() const { return name_ == "."; }
  /** A path for calls that have no variant with a descriptor; they must not follow its last part. */
  std::string proc() const { return "/proc/self/fd/" + std::to_string(folder_) + "/" + name_; }

 private:
  void Close() {
    const int kept = errno;
    if (owned_) close(folder_);
    owned_ = false;
    errno = kept;
  }
  void Fail(int error) { error_ = error; }

  int folder_;
  bool owned_ = false;
  std::string name_;
  int error_ = 0;
};

void StoreStatus(const struct stat& status, double* out) {
  const auto seconds = [](const timespec& time) { return static_cast<double>(time.tv_sec); };
  const auto nanoseconds = [](const timespec& time) { return static_cast<double>(time.tv_nsec); };
  out[0] = status.st_mode;
  out[1] = static_cast<double>(status.st_nlink);
  out[2] = status.st_uid;
  out[3] = status.st_gid;
  out[4] = static_cast<uint32_t>(status.st_ino);
  out[5] = static_cast<uint32_t>(static_cast<uint64_t>(status.st_ino) >> 32);
  out[6] = static_cast<double>(status.st_dev);
  out[7] = static_cast<double>(status.st_rdev);
  out[8] = static_cast<double>(status.st_size);
  out[9] = static_cast<double>(status.st_blksize);
  out[10] = static_cast<double>(status.st_blocks);
  out[11] = seconds(status.st_atim);
  out[12] = nanoseconds(status.st_atim);
  out[13] = seconds(status.st_mtim);
  out[14] = nanoseconds(status.st_mtim);
  out[15] = seconds(status.st_ctim);
  out[16] = nanoseconds(status.st_ctim);
}
constexpr size_t kStatusFields = 17;

double* Doubles(const Napi::CallbackInfo& info, size_t index, size_t count) {
  const Bytes bytes = BytesOf(info[index], "the result");
  if (bytes.length < count * sizeof(double)) throw Napi::TypeError::New(info.Env(), "the result is too small");
  return reinterpret_cast<double*>(bytes.data);
}

// treeOpen(root, path, flags, mode): a descriptor. Regular files and folders only: opening anything else may have
// effects on the host, or wait.
Napi::Value TreeOpen(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  const int flags = Int(info, 2) | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC | O_NONBLOCK;
  int fd;
  do fd = openat(place.folder(), place.name(), flags, Uint(info, 3));
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return Answer(info, fd);
  struct stat status;
  if (fstat(fd, &status) < 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) {
    close(fd);
    return Refuse(info, ENXIO);
  }
  return Napi::Number::New(info.Env(), fd);
}

// treeStatus(root, path, result)
Napi::Value TreeStatus(const Napi::CallbackInfo& info) {
  double* out = Doubles(info, 2, kStatusFields);
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  struct stat status;
  const int result = fstatat(place.folder(), place.name(), &status, AT_SYMLINK_NOFOLLOW);
  if (result == 0) StoreStatus(status, out);
  return Answer(info, result);
}

// fileStatus(fd, result)
Napi::Value FileStatus(const Napi::CallbackInfo& info) {
  double* out = Doubles(info, 1, kStatusFields);
  struct stat status;
  const int result = fstat(Int(info, 0), &status);
  if (result == 0) StoreStatus(status, out);
  return Answer(info, result);
}

// treeReadLink(root, path, buffer): the target's length
Napi::Value TreeReadLink(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[2], "the buffer");
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, readlinkat(place.folder(), place.name(), reinterpret_cast<char*>(buffer.data), buffer.length));
}

// treeMakeFolder(root, path, mode)
Napi::Value TreeMakeFolder(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, mkdirat(place.folder(), place.name(), Uint(info, 2)));
}

// treeMakeNode(root, path, mode, major, minor)
Napi::Value TreeMakeNode(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, mknodat(place.folder(), place.name(), Uint(info, 2), makedev(Uint(info, 3), Uint(info, 4))));
}

// treeSymlink(root, path, target)
Napi::Value TreeSymlink(const Napi::CallbackInfo& info) {
  const std::string target = Text(info, 2);
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, symlinkat(target.c_str(), place.folder(), place.name()));
}

// treeLink(root, from, to)
Napi::Value TreeLink(const Napi::CallbackInfo& info) {
  const Place from(Int(info, 0), Text(info, 1));
  const Place to(Int(info, 0), Text(info, 2));
  if (from.error() != 0 || to.error() != 0) return Refuse(info, from.error() != 0 ? from.error() : to.error());
  return Answer(info, linkat(from.folder(), from.name(), to.folder(), to.name(), 0));
}

// treeRename(root, from, to)
Napi::Value TreeRename(const Napi::CallbackInfo& info) {
  const Place from(Int(info, 0), Text(info, 1));
  const Place to(Int(info, 0), Text(info, 2));
  if (from.error() != 0 || to.error() != 0) return Refuse(info, from.error() != 0 ? from.error() : to.error());
  if (from.root() || to.root()) return Refuse(info, EBUSY);
  return Answer(info, renameat(from.folder(), from.name(), to.folder(), to.name()));
}

// treeRemove(root, path, folder)
Napi::Value TreeRemove(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  if (place.root()) return Refuse(info, EBUSY);
  return Answer(info, unlinkat(place.folder(), place.name(), info[2].ToBoolean() ? AT_REMOVEDIR : 0));
}

// treeChangeMode(root, path, mode): fchmodat has no variant that does not follow links, so the file is pinned first
Napi::Value TreeChangeMode(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  const int fd = openat(place.folder(), place.name(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return Answer(info, fd);
  struct stat status;
  int result = fstat(fd, &status);
  if (result == 0 && S_ISLNK(status.st_mode)) {
    errno = ELOOP;
    result = -1;
  } else if (result == 0) {
    result = chmod(("/proc/self/fd/" + std::to_string(fd)).c_str(), Uint(info, 2));
  }
  const int error = errno;
  close(fd);
  errno = error;
  return Answer(info, result);
}

// treeChangeOwner(root, path, uid, gid): 0xffffffff leaves one as it is
Napi::Value TreeChangeOwner(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, fchownat(place.folder(), place.name(), Uint(info, 2), Uint(info, 3), AT_SYMLINK_NOFOLLOW));
}

// treeChangeTimes(root, path, atime seconds, atime nanoseconds, mtime seconds, mtime nanoseconds): the nanoseconds may be
// UTIME_NOW or UTIME_OMIT
Napi::Value TreeChangeTimes(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  const timespec times[2] = {{static_cast<time_t>(Double(info, 2)), static_cast<long>(Double(info, 3))},
                             {static_cast<time_t>(Double(info, 4)), static_cast<long>(Double(info, 5))}};
  return Answer(info, utimensat(place.folder(), place.name(), times, AT_SYMLINK_NOFOLLOW));
}

// treeGetAttribute(root, path, name, buffer): the value's length, which is all that an empty buffer asks for
Napi::Value TreeGetAttribute(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[3], "the buffer");
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, lgetxattr(place.proc().c_str(), Text(info, 2).c_str(), buffer.data, buffer.length));
}

// treeListAttributes(root, path, buffer): as treeGetAttribute; the names end with a 0 each
Napi::Value TreeListAttributes(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[2], "the buffer");
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, llistxattr(place.proc().c_str(), reinterpret_cast<char*>(buffer.data), buffer.length));
}

// treeSetAttribute(root, path, name, value, flags)
Napi::Value TreeSetAttribute(const Napi::CallbackInfo& info) {
  const Bytes value = BytesOf(info[3], "the value");
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, lsetxattr(place.proc().c_str(), Text(info, 2).c_str(), value.data, value.length, Int(info, 4)));
}

// treeRemoveAttribute(root, path, name)
Napi::Value TreeRemoveAttribute(const Napi::CallbackInfo& info) {
  const Place place(Int(info, 0), Text(info, 1));
  if (place.error() != 0) return Refuse(info, place.error());
  return Answer(info, lremovexattr(place.proc().c_str(), Text(info, 2).c_str()));
}

// treeFileSystem(root, result): type, block size, blocks, free, available, files, free files, id (two halves), longest name
Napi::Value TreeFileSystem(const Napi::CallbackInfo& info) {
  double* out = Doubles(info, 1, 10);
  struct statfs status;
  const int result = fstatfs(Int(info, 0), &status);
  if (result < 0) return Answer(info, result);
  out[0] = static_cast<uint32_t>(status.f_type);
  out[1] = static_cast<double>(status.f_bsize);
  out[2] = static_cast<double>(status.f_blocks);
  out[3] = static_cast<double>(status.f_bfree);
  out[4] = static_cast<double>(status.f_bavail);
  out[5] = static_cast<double>(status.f_files);
  out[6] = static_cast<double>(status.f_ffree);
  out[7] = static_cast<uint32_t>(status.f_fsid.__val[0]);
  out[8] = static_cast<uint32_t>(status.f_fsid.__val[1]);
  out[9] = static_cast<double>(status.f_namelen);
  return Answer(info, 0);
}

// readFolder(fd, positionLow, positionHigh, buffer): entries from that position, as getdents64(2) gives them
Napi::Value ReadFolder(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[3], "the buffer");
  const int fd = Int(info, 0);
  const off_t position = static_cast<off_t>(static_cast<uint64_t>(Uint(info, 2)) << 32 | Uint(info, 1));
  if (lseek(fd, position, SEEK_SET) < 0) return Answer(info, -1);
  return Answer(info, syscall(SYS_getdents64, fd, buffer.data, buffer.length));
}

// fileGeneration(fd): the inode's generation
Napi::Value FileGeneration(const Napi::CallbackInfo& info) {
  // The ioctl's number says long, file systems store an int.
  long generation = 0;
  if (ioctl(Int(info, 0), FS_IOC_GETVERSION, &generation) < 0) return Answer(info, -1);
  return Napi::Number::New(info.Env(), static_cast<uint32_t>(generation));
}

}  // namespace

void DefineTree(Napi::Env env, Napi::Object exports) {
  exports.Set("treeOpen", Napi::Function::New<TreeOpen>(env, "treeOpen"));
  exports.Set("treeStatus", Napi::Function::New<TreeStatus>(env, "treeStatus"));
  exports.Set("fileStatus", Napi::Function::New<FileStatus>(env, "fileStatus"));
  exports.Set("treeReadLink", Napi::Function::New<TreeReadLink>(env, "treeReadLink"));
  exports.Set("treeMakeFolder", Napi::Function::New<TreeMakeFolder>(env, "treeMakeFolder"));
  exports.Set("treeMakeNode", Napi::Function::New<TreeMakeNode>(env, "treeMakeNode"));
  exports.Set("treeSymlink", Napi::Function::New<TreeSymlink>(env, "treeSymlink"));
  exports.Set("treeLink", Napi::Function::New<TreeLink>(env, "treeLink"));
  exports.Set("treeRename", Napi::Function::New<TreeRename>(env, "treeRename"));
  exports.Set("treeRemove", Napi::Function::New<TreeRemove>(env, "treeRemove"));
  exports.Set("treeChangeMode", Napi::Function::New<TreeChangeMode>(env, "treeChangeMode"));
  exports.Set("treeChangeOwner", Napi::Function::New<TreeChangeOwner>(env, "treeChangeOwner"));
  exports.Set("treeChangeTimes", Napi::Function::New<TreeChangeTimes>(env, "treeChangeTimes"));
  exports.Set("treeGetAttribute", Napi::Function::New<TreeGetAttribute>(env, "treeGetAttribute"));
  exports.Set("treeListAttributes", Napi::Function::New<TreeListAttributes>(env, "treeListAttributes"));
  exports.Set("treeSetAttribute", Napi::Function::New<TreeSetAttribute>(env, "treeSetAttribute"));
  exports.Set("treeRemoveAttribute", Napi::Function::New<TreeRemoveAttribute>(env, "treeRemoveAttribute"));
  exports.Set("treeFileSystem", Napi::Function::New<TreeFileSystem>(env, "treeFileSystem"));
  exports.Set("readFolder", Napi::Function::New<ReadFolder>(env, "readFolder"));
  exports.Set("fileGeneration", Napi::Function::New<FileGeneration>(env, "fileGeneration"));
}

}  // namespace southbridge
