#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

/** Frames of one system call at most. */
constexpr uint32_t kMaxFrames = 64;

// bindUdp(address, port): a UDP socket there that never waits; others may have the same
Napi::Value BindUdp(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(info[1].As<Napi::Number>().Uint32Value()));
  const std::string host = info[0].As<Napi::String>();
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) throw SystemError(env, "bind", EINVAL);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw SystemError(env, "socket", errno);
  const int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    const int error = errno;
    close(fd);
    throw SystemError(env, "bind", error);
  }
  return Napi::Number::New(env, fd);
}

struct Lengths {
  int32_t* data;
  uint32_t count;
};

Lengths LengthsOf(Napi::Env env, Napi::Value value) {
  const Bytes bytes = BytesOf(value, "the lengths");
  if (bytes.length / sizeof(int32_t) > kMaxFrames) throw Napi::RangeError::New(env, "too many frames in one call");
  return {reinterpret_cast<int32_t*>(bytes.data), static_cast<uint32_t>(bytes.length / sizeof(int32_t))};
}

// sendFrames(socket, bytes, lengths, count, to): the frames, one behind the other in `bytes`, as datagrams to the sockaddr `to`,
// or where the socket is connected. How many are gone; the rest found no room. What finds nobody is lost, as on a wire.
Napi::Value SendFrames(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[1], "the frames");
  const Lengths lengths = LengthsOf(env, info[2]);
  const uint32_t count = info[3].As<Napi::Number>().Uint32Value();
  const Bytes to = BytesOf(info[4], "the address");
  if (count > lengths.count) throw Napi::RangeError::New(env, "there are not so many frames");
  mmsghdr messages[kMaxFrames];
  iovec parts[kMaxFrames];
  size_t at = 0;
  for (uint32_t index = 0; index < count; index++) {
    const size_t length = static_cast<uint32_t>(lengths.data[index]);
    if (length > bytes.length - at) throw Napi::RangeError::New(env, "the frames are longer than their bytes");
    parts[index] = {bytes.data + at, length};
    messages[index] = {};
    messages[index].msg_hdr.msg_iov = &parts[index];
    messages[index].msg_hdr.msg_iovlen = 1;
    if (to.length > 0) {
      messages[index].msg_hdr.msg_name = to.data;
      messages[index].msg_hdr.msg_namelen = static_cast<socklen_t>(to.length);
    }
    at += length;
  }
  const int fd = info[0].As<Napi::Number>().Int32Value();
  uint32_t done = 0;
  bool told = false;
  while (done < count) {
    const int sent = sendmmsg(fd, messages + done, count - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<uint32_t>(sent);
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else if (errno == ECONNREFUSED && !told) {
      // What is told here is that an earlier datagram found nobody; this one has not been tried.
      told = true;
    } else {
      done++;
    }
  }
  return Napi::Number::New(env, done);
}

// receiveFrames(socket, bytes, room, lengths): datagrams, each in `room` bytes of its own. How many; 0 while none has come.
Napi::Value ReceiveFrames(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[1], "the frames");
  const uint32_t room = info[2].As<Napi::Number>().Uint32Value();
  const Lengths lengths = LengthsOf(env, info[3]);
  if (static_cast<uint64_t>(room) * lengths.count > bytes.length) throw Napi::RangeError::New(env, "the frames have no room");
  mmsghdr messages[kMaxFrames];
  iovec parts[kMaxFrames];
  for (uint32_t index = 0; index < lengths.count; index++) {
    parts[index] = {bytes.data + static_cast<size_t>(room) * index, room};
    messages[index] = {};
    messages[index].msg_hdr.msg_iov = &parts[index];
    messages[index].msg_hdr.msg_iovlen = 1;
  }
  int received;
  do received = recvmmsg(info[0].As<Napi::Number>().Int32Value(), messages, lengths.count, MSG_DONTWAIT, nullptr);
  while (received < 0 && (errno == EINTR || errno == ECONNREFUSED));
  if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) received = 0;
  if (received < 0) throw SystemError(env, "recvmmsg", errno);
  for (int index = 0; index < received; index++) lengths.data[index] = static_cast<int32_t>(messages[index].msg_len);
  return Napi::Number::New(env, received);
}

}  // namespace

void DefineDatagrams(Napi::Env env, Napi::Object exports) {
  exports.Set("bindUdp", Napi::Function::New<BindUdp>(env, "bindUdp"));
  exports.Set("sendFrames", Napi::Function::New<SendFrames>(env, "sendFrames"));
  exports.Set("receiveFrames", Napi::Function::New<ReceiveFrames>(env, "receiveFrames"));
}

}  // namespace southbridge
