#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

/** SCM_MAX_FD of the kernel. */
constexpr size_t kMaxFds = 253;

int Fd(const Napi::CallbackInfo& info) { return info[0].As<Napi::Number>().Int32Value(); }

// sendFds(socket, bytes, fds): how many of the bytes went out; -1 where the socket is full
Napi::Value SendFds(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[1], "the message");
  const Napi::Array list = info[2].As<Napi::Array>();
  if (list.Length() > kMaxFds) throw Napi::RangeError::New(env, "too many descriptors in one message");
  std::vector<int> fds(list.Length());
  for (uint32_t index = 0; index < fds.size(); index++) fds[index] = list.Get(index).As<Napi::Number>().Int32Value();

  iovec part = {bytes.data, bytes.length};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  std::vector<uint8_t> control(CMSG_SPACE(fds.size() * sizeof(int)));
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(Fd(info), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Napi::Number::New(env, -1);
  if (sent < 0) throw SystemError(env, "sendmsg", errno);
  return Napi::Number::New(env, static_cast<double>(sent));
}

// recvFds(socket, bytes): [length, fds]; length 0 at the end of the stream, -1 where nothing has come yet
Napi::Value RecvFds(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[1], "the buffer");
  iovec part = {bytes.data, bytes.length};
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t received;
  do received = recvmsg(Fd(info), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (received < 0 && errno == EINTR);
  if (received < 0 && errno != EAGAIN && errno != EWOULDBLOCK) throw SystemError(env, "recvmsg", errno);

  const Napi::Array fds = Napi::Array::New(env);
  if (received >= 0) {
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t index = 0; index < count; index++) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof fd);
        fds.Set(fds.Length(), Napi::Number::New(env, fd));
      }
    }
  }
  Napi::Array result = Napi::Array::New(env, 2);
  result.Set(0u, Napi::Number::New(env, static_cast<double>(received)));
  result.Set(1u, fds);
  return result;
}

// socketPair(packets): two connected unix sockets, of bytes or of packets
Napi::Value SocketPair(const Napi::CallbackInfo& info) {
  int fds[2];
  const int type = info[0].ToBoolean() ? SOCK_SEQPACKET : SOCK_STREAM;
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) throw SystemError(info.Env(), "socketpair", errno);
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, Napi::Number::New(info.Env(), fds[0]));
  result.Set(1u, Napi::Number::New(info.Env(), fds[1]));
  return result;
}

/** The address of a unix socket at a path; false where it is too long. */
bool UnixAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof address->sun_path) return false;
  memcpy(address->sun_path, path.data(), path.size());
  return true;
}

// bindDatagrams(path): a unix socket of datagrams there
Napi::Value BindDatagrams(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  sockaddr_un address;
  if (!UnixAddress(info[0].As<Napi::String>(), &address)) throw SystemError(env, "bind", ENAMETOOLONG);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw SystemError(env, "socket", errno);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    const int error = errno;
    close(fd);
    throw SystemError(env, "bind", error);
  }
  return Napi::Number::New(env, fd);
}

// openTap(name or '', vnetHeader, multiQueue): [fd, name]
Napi::Value OpenTap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw SystemError(env, "open", errno);
  ifreq request = {};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (info[1].ToBoolean()) request.ifr_flags |= IFF_VNET_HDR;
  if (info[2].ToBoolean()) request.ifr_flags |= IFF_MULTI_QUEUE;
  const std::string name = info[0].As<Napi::String>();
  strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &request) < 0) {
    const int error = errno;
    close(fd);
    throw SystemError(env, "TUNSETIFF", error);
  }
  Napi::Array result = Napi::Array::New(env, 2);
  result.Set(0u, Napi::Number::New(env, fd));
  result.Set(1u, Napi::String::New(env, request.ifr_name));
  return result;
}

// tapOffload(fd, flags, headerSize): TUN_F_* bits; the size of the virtio-net header before each packet, or 0
void TapOffload(const Napi::CallbackInfo& info) {
  int size = info[2].As<Napi::Number>().Int32Value();
  if (size > 0 && ioctl(Fd(info), TUNSETVNETHDRSZ, &size) < 0) throw SystemError(info.Env(), "TUNSETVNETHDRSZ", errno);
  const auto flags = static_cast<unsigned long>(info[1].As<Napi::Number>().Uint32Value());
  if (ioctl(Fd(info), TUNSETOFFLOAD, flags) < 0) throw SystemError(info.Env(), "TUNSETOFFLOAD", errno);
}

// tapQueue(fd, attach): whether the kernel gives frames to this queue of a tap of several
void TapQueue(const Napi::CallbackInfo& info) {
  ifreq request = {};
  request.ifr_flags = info[1].ToBoolean() ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
  if (ioctl(Fd(info), TUNSETQUEUE, &request) < 0) throw SystemError(info.Env(), "TUNSETQUEUE", errno);
}

// tapSendBuffer(fd, bytes)
void TapSendBuffer(const Napi::CallbackInfo& info) {
  int bytes = info[1].As<Napi::Number>().Int32Value();
  if (ioctl(Fd(info), TUNSETSNDBUF, &bytes) < 0) throw SystemError(info.Env(), "TUNSETSNDBUF", errno);
}

// tapFlags(fd): IFF_* bits that the interface has
Napi::Value TapFlags(const Napi::CallbackInfo& info) {
  ifreq request = {};
  if (ioctl(Fd(info), TUNGETIFF, &request) < 0) throw SystemError(info.Env(), "TUNGETIFF", errno);
  return Napi::Number::New(info.Env(), static_cast<uint16_t>(request.ifr_flags));
}

}  // namespace

void DefineSockets(Napi::Env env, Napi::Object exports) {
  exports.Set("sendFds", Napi::Function::New<SendFds>(env, "sendFds"));
  exports.Set("recvFds", Napi::Function::New<RecvFds>(env, "recvFds"));
  exports.Set("socketPair", Napi::Function::New<SocketPair>(env, "socketPair"));
  exports.Set("bindDatagrams", Napi::Function::New<BindDatagrams>(env, "bindDatagrams"));
  exports.Set("openTap", Napi::Function::New<OpenTap>(env, "openTap"));
  exports.Set("tapOffload", Napi::Function::New<TapOffload>(env, "tapOffload"));
  exports.Set("tapQueue", Napi::Function::New<TapQueue>(env, "tapQueue"));
  exports.Set("tapSendBuffer", Napi::Function::New<TapSendBuffer>(env, "tapSendBuffer"));
  exports.Set("tapFlags", Napi::Function::New<TapFlags>(env, "tapFlags"));
}

}  // namespace southbridge
