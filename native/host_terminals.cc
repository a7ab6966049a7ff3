#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

int Fd(const Napi::CallbackInfo& info) { return info[0].As<Napi::Number>().Int32Value(); }

termios Attributes(const Napi::CallbackInfo& info) {
  termios attributes;
  if (tcgetattr(Fd(info), &attributes) < 0) throw SystemError(info.Env(), "tcgetattr", errno);
  return attributes;
}

void Apply(const Napi::CallbackInfo& info, const termios& attributes) {
  int result;
  do result = tcsetattr(Fd(info), TCSANOW, &attributes);
  while (result < 0 && errno == EINTR);
  if (result < 0) throw SystemError(info.Env(), "tcsetattr", errno);
}

// openPty(): [master, slave, the slave's path]
Napi::Value OpenPty(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int master, slave;
  if (openpty(&master, &slave, nullptr, nullptr, nullptr) < 0) throw SystemError(env, "openpty", errno);
  fcntl(master, F_SETFD, FD_CLOEXEC);
  fcntl(slave, F_SETFD, FD_CLOEXEC);
  char path[64];
  if (const int error = ptsname_r(master, path, sizeof path)) {
    close(master);
    close(slave);
    throw SystemError(env, "ptsname_r", error);
  }
  Napi::Array result = Napi::Array::New(env, 3);
  result.Set(0u, Napi::Number::New(env, master));
  result.Set(1u, Napi::Number::New(env, slave));
  result.Set(2u, Napi::String::New(env, path));
  return result;
}

// getTerminal(fd): the attributes as bytes, for setTerminal
Napi::Value GetTerminal(const Napi::CallbackInfo& info) {
  const termios attributes = Attributes(info);
  auto bytes = Napi::Uint8Array::New(info.Env(), sizeof attributes);
  memcpy(bytes.Data(), &attributes, sizeof attributes);
  return bytes;
}

// setTerminal(fd, attributes)
void SetTerminal(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[1], "the attributes");
  termios attributes;
  if (bytes.length != sizeof attributes) throw Napi::RangeError::New(info.Env(), "these are no terminal attributes");
  memcpy(&attributes, bytes.data, sizeof attributes);
  Apply(info, attributes);
}

// rawTerminal(fd, signals): no echo, no lines, no translation; with `signals`, Ctrl-C and the like still act
void RawTerminal(const Napi::CallbackInfo& info) {
  termios attributes = Attributes(info);
  const bool signals = info[1].ToBoolean();
  const tcflag_t output = attributes.c_oflag;
  cfmakeraw(&attributes);
  attributes.c_oflag = output | OPOST;
  if (signals) attributes.c_lflag |= ISIG;
  attributes.c_cc[VMIN] = 1;
  attributes.c_cc[VTIME] = 0;
  Apply(info, attributes);
}

speed_t SpeedOf(Napi::Env env, int64_t baud) {
  static const struct {
    int64_t baud;
    speed_t speed;
  } kSpeeds[] = {{50, B50},         {75, B75},         {110, B110},       {134, B134},       {150, B150},
                 {200, B200},       {300, B300},       {600, B600},       {1200, B1200},     {1800, B1800},
                 {2400, B2400},     {4800, B4800},     {9600, B9600},     {19200, B19200},   {38400, B38400},
                 {57600, B57600},   {115200, B115200}, {230400, B230400}, {460800, B460800}, {500000, B500000},
                 {576000, B576000}, {921600, B921600}, {1000000, B1000000}};
  for (const auto& known : kSpeeds) {
    if (known.baud == baud) return known.speed;
  }
  throw Napi::RangeError::New(env, "the host's serial ports have no such speed");
}

// setSerial(fd, baud, dataBits, parity 'N' 'E' 'O', stopBits): a real serial port, raw
void SetSerial(const Napi::CallbackInfo& info) {
  termios attributes = Attributes(info);
  cfmakeraw(&attributes);
  const speed_t speed = SpeedOf(info.Env(), info[1].As<Napi::Number>().Int64Value());
  cfsetispeed(&attributes, speed);
  cfsetospeed(&attributes, speed);
  static const tcflag_t kSizes[] = {CS5, CS6, CS7, CS8};
  attributes.c_cflag &= ~static_cast<tcflag_t>(CSIZE | CSTOPB | PARENB | PARODD | CRTSCTS);
  attributes.c_cflag |= kSizes[(info[2].As<Napi::Number>().Int32Value() - 5) & 3] | CLOCAL | CREAD;
  const std::string parity = info[3].As<Napi::String>();
  if (parity != "N") attributes.c_cflag |= PARENB;
  if (parity == "O") attributes.c_cflag |= PARODD;
  if (info[4].As<Napi::Number>().Int32Value() == 2) attributes.c_cflag |= CSTOPB;
  Apply(info, attributes);
}

// modemLines(fd, set?): TIOCM bits
Napi::Value ModemLines(const Napi::CallbackInfo& info) {
  int bits = 0;
  if (info[1].IsNumber()) {
    bits = info[1].As<Napi::Number>().Int32Value();
    if (ioctl(Fd(info), TIOCMSET, &bits) < 0) throw SystemError(info.Env(), "ioctl", errno);
  } else if (ioctl(Fd(info), TIOCMGET, &bits) < 0) {
    throw SystemError(info.Env(), "ioctl", errno);
  }
  return Napi::Number::New(info.Env(), bits);
}

// sendBreak(fd, on)
void SendBreak(const Napi::CallbackInfo& info) {
  if (ioctl(Fd(info), info[1].ToBoolean() ? TIOCSBRK : TIOCCBRK, 0) < 0) throw SystemError(info.Env(), "ioctl", errno);
}

}  // namespace

void DefineTerminals(Napi::Env env, Napi::Object exports) {
  exports.Set("openPty", Napi::Function::New<OpenPty>(env, "openPty"));
  exports.Set("getTerminal", Napi::Function::New<GetTerminal>(env, "getTerminal"));
  exports.Set("setTerminal", Napi::Function::New<SetTerminal>(env, "setTerminal"));
  exports.Set("rawTerminal", Napi::Function::New<RawTerminal>(env, "rawTerminal"));
  exports.Set("setSerial", Napi::Function::New<SetSerial>(env, "setSerial"));
  exports.Set("modemLines", Napi::Function::New<ModemLines>(env, "modemLines"));
  exports.Set("sendBreak", Napi::Function::New<SendBreak>(env, "sendBreak"));
}

}  // namespace southbridge
