#include "slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <uv.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "errors.h"
#include "slirp_library.h"
#include "watcher.h"

namespace southbridge {

namespace {

constexpr size_t kFrameSize = 65536 + 64;
constexpr size_t kMostWaiting = 1000;

/** A timer of the stack's own: its router advertisements. */
struct Timer {
  uv_timer_t handle;
  void (*fire)(void*);
  void* opaque;
};

/**
 * A user-mode network. Its sockets sit in one epoll set, which the event loop watches as a single descriptor; the set is
 * brought up to date before each wait and after each frame from the guest.
 */
class SlirpStack : public Napi::ObjectWrap<SlirpStack> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "SlirpStack",
                       {InstanceMethod<&SlirpStack::Input>("input"), InstanceMethod<&SlirpStack::AddHostForward>("addHostForward"),
                        InstanceMethod<&SlirpStack::RemoveHostForward>("removeHostForward"),
                        InstanceMethod<&SlirpStack::AddGuestForward>("addGuestForward"),
                        InstanceMethod<&SlirpStack::ConnectionInfo>("connectionInfo"),
                        InstanceMethod<&SlirpStack::Close>("close"), InstanceAccessor<&SlirpStack::Frame>("frame")});
  }

  // new SlirpStack(config, frameReady(length), guestError(message))
  explicit SlirpStack(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<SlirpStack>(info),
        frame_ready_(Napi::Persistent(info[1].As<Napi::Function>())),
        guest_error_(Napi::Persistent(info[2].As<Napi::Function>())),
        async_context_(info.Env(), "southbridge.slirp") {
    const Napi::Env env = info.Env();
    const char* reason = "";
    library_ = slirp::OpenLibrary(&reason);
    if (library_ == nullptr) throw Napi::Error::New(env, reason);
    if (napi_get_uv_event_loop(env, &loop_) != napi_ok) throw Napi::Error::New(env, "there is no event loop");
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) throw SystemError(env, "epoll_create1", errno);
    Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, kFrameSize);
    frame_ = Napi::Persistent(Napi::Uint8Array::New(env, kFrameSize, buffer, 0));
    frame_bytes_ = static_cast<uint8_t*>(buffer.Data());
    in_call_ = true;
    try {
      CreateStack(info[0].As<Napi::Object>());
      if (stack_ == nullptr) throw Napi::Error::New(env, "libslirp refuses these addresses");
    } catch (...) {
      close(epoll_fd_);
      throw;
    }
    in_call_ = false;
    OpenHandles(env);
    Refill();
  }

  ~SlirpStack() override { CloseAll(); }

 private:
  struct Handles {
    uv_poll_t poll;
    uv_timer_t timer;
    uv_prepare_t prepare;
    SlirpStack* owner;
    napi_async_cleanup_hook_handle hook;
    int open;
  };

  /** While the stack is at work it cannot be taken down: a close that a callback asks for waits until it is done. */
  struct Inside {
    explicit Inside(SlirpStack* stack) : stack(stack) { stack->inside_++; }
    ~Inside() {
      if (stack->inside_ == 1) stack->TakeWaiting();
      if (--stack->inside_ == 0 && stack->close_wanted_) stack->CloseAll();
    }
    SlirpStack* const stack;
  };

  static SlirpStack* Of(void* opaque) { return static_cast<SlirpStack*>(opaque); }

  static std::string Text(Napi::Object config, const char* name) {
    const Napi::Value value = config.Get(name);
    return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
  }

  static in_addr Address(Napi::Value value) {
    in_addr address = {};
    if (value.IsString() && inet_pton(AF_INET, value.As<Napi::String>().Utf8Value().c_str(), &address) != 1) {
      throw Napi::RangeError::New(value.Env(), "this is no IPv4 address");
    }
    return address;
  }

  static in6_addr Address6(Napi::Value value) {
    in6_addr address = {};
    if (value.IsString() && inet_pton(AF_INET6, value.As<Napi::String>().Utf8Value().c_str(), &address) != 1) {
      throw Napi::RangeError::New(value.Env(), "this is no IPv6 address");
    }
    return address;
  }

  void CreateStack(Napi::Object options) {
    const std::string host_name = Text(options, "hostName"), tftp_server = Text(options, "tftpServerName");
    const std::string tftp = Text(options, "tftpPath"), boot_file = Text(options, "bootFile");
    const std::string domain = Text(options, "domainName");
    const auto given = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
    std::vector<std::string> search;
    if (options.Get("dnsSearch").IsArray()) {
      const Napi::Array list = options.Get("dnsSearch").As<Napi::Array>();
      for (uint32_t index = 0; index < list.Length(); index++) search.push_back(list.Get(index).As<Napi::String>());
    }
    std::vector<const char*> search_pointers;
    for (const std::string& domain_name : search) search_pointers.push_back(domain_name.c_str());
    search_pointers.push_back(nullptr);

    slirp::Config config = {};
    config.version = 1;
    config.restricted = options.Get("restricted").ToBoolean();
    config.in_enabled = options.Get("ipv4").ToBoolean();
    config.network = Address(options.Get("network"));
    config.mask = Address(options.Get("mask"));
    config.host = Address(options.Get("host"));
    config.dhcp_start = Address(options.Get("dhcpStart"));
    config.name_server = Address(options.Get("nameServer"));
    config.in6_enabled = options.Get("ipv6").ToBoolean();
    config.prefix6 = Address6(options.Get("prefix6"));
    config.prefix6_length = static_cast<uint8_t>(options.Get("prefix6Length").ToNumber().Uint32Value());
    config.host6 = Address6(options.Get("host6"));
    config.name_server6 = Address6(options.Get("nameServer6"));
    config.host_name = given(host_name);
    config.tftp_server_name = given(tftp_server);
    config.tftp_path = given(tftp);
    config.boot_file = given(boot_file);
    config.dns_search = search.empty() ? nullptr : search_pointers.data();
    config.domain_name = given(domain);

    callbacks_.send_packet = [](const void* frame, size_t length, void* opaque) { return Of(opaque)->Send(frame, length); };
    callbacks_.guest_error = [](const char* message, void* opaque) { Of(opaque)->GuestError(message); };
    callbacks_.clock_get_ns = [](void*) { return static_cast<int64_t>(MonotonicNs()); };
    callbacks_.timer_new = [](void (*fire)(void*), void* fire_opaque, void* opaque) -> void* {
      return Of(opaque)->NewTimer(fire, fire_opaque);
    };
    callbacks_.timer_free = [](void* timer, void* opaque) { Of(opaque)->FreeTimer(static_cast<Timer*>(timer)); };
    callbacks_.timer_mod = [](void* timer, int64_t expire_ms, void*) { SetTimer(static_cast<Timer*>(timer), expire_ms); };
    callbacks_.register_poll_fd = [](int, void*) {};
    callbacks_.unregister_poll_fd = [](int fd, void* opaque) { Of(opaque)->Forget(fd); };
    callbacks_.notify = [](void*) {};
    stack_ = library_->create(&config, &callbacks_, this);
  }

  void OpenHandles(Napi::Env env) {
    handles_ = new Handles();
    handles_->owner = this;
    handles_->open = 3;
    handles_->poll.data = handles_->timer.data = handles_->prepare.data = handles_;
    uv_poll_init(loop_, &handles_->poll, epoll_fd_);
    uv_timer_init(loop_, &handles_->timer);
    uv_prepare_init(loop_, &handles_->prepare);
    uv_poll_start(&handles_->poll, UV_READABLE, [](uv_poll_t* poll, int, int) { Dispatch(poll->data); });
    uv_prepare_start(&handles_->prepare, [](uv_prepare_t* prepare) {
      SlirpStack* owner = static_cast<Handles*>(prepare->data)->owner;
      if (owner != nullptr) owner->Refill();
    });
    // A network by itself keeps no process alive.
    uv_unref(reinterpret_cast<uv_handle_t*>(&handles_->poll));
    uv_unref(reinterpret_cast<uv_handle_t*>(&handles_->timer));
    uv_unref(reinterpret_cast<uv_handle_t*>(&handles_->prepare));
    napi_add_async_cleanup_hook(
        env,
        [](napi_async_cleanup_hook_handle, void* data) {
          auto* handles = static_cast<Handles*>(data);
          if (handles->owner != nullptr) handles->owner->CloseAll();
        },
        handles_, &handles_->hook);
  }

  static void Dispatch(void* data) {
    SlirpStack* owner = static_cast<Handles*>(data)->owner;
    if (owner != nullptr && owner->inside_ == 0) owner->Poll();
  }

  /** Asks the stack what it waits for, and brings the epoll set and the timer up to date. */
  void Refill() {
    if (inside_ > 0) return;
    stale_ = false;
    fds_.clear();
    uint32_t timeout_ms = UINT32_MAX;
    library_->pollfds_fill(
        stack_, &timeout_ms,
        [](int fd, int events, void* opaque) {
          auto& fds = Of(opaque)->fds_;
          fds.push_back({fd, ToPoll(events), 0});
          return static_cast<int>(fds.size() - 1);
        },
        this);
    std::map<int, uint32_t> wanted;
    for (const pollfd& fd : fds_) wanted[fd.fd] |= static_cast<uint32_t>(fd.events);
    for (auto watched = watched_.begin(); watched != watched_.end();) {
      if (wanted.count(watched->first) != 0) {
        ++watched;
        continue;
      }
      epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, watched->first, nullptr);
      watched = watched_.erase(watched);
    }
    for (const auto& [fd, events] : wanted) {
      const auto watched = watched_.find(fd);
      if (watched != watched_.end() && watched->second == events) continue;
      epoll_event event = {};
      event.events = events;  // EPOLLIN and the like are poll's POLLIN and the like.
      event.data.fd = fd;
      if (epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT) epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
      watched_[fd] = events;
    }
    if (timeout_ms == UINT32_MAX) uv_timer_stop(&handles_->timer);
    else if (!uv_is_active(reinterpret_cast<uv_handle_t*>(&handles_->timer)) || uv_timer_get_due_in(&handles_->timer) > timeout_ms)
      uv_timer_start(&handles_->timer, [](uv_timer_t* timer) { Dispatch(timer->data); }, timeout_ms, 0);
  }

  /** Lets the stack handle what its sockets have; frames for the guest come out on the way. */
  void Poll() {
    // The event loop runs timers after what it polls, so this may come twice in a round: what the stack asked for before is then no
    // longer so, and to read with its buffer full it would abort.
    if (stale_) Refill();
    stale_ = true;
    const int result = fds_.empty() ? 0 : poll(fds_.data(), fds_.size(), 0);
    const Inside inside(this);
    library_->pollfds_poll(
        stack_, result < 0,
        [](int index, void* opaque) {
          const auto& fds = Of(opaque)->fds_;
          if (index < 0 || static_cast<size_t>(index) >= fds.size()) return 0;
          return Events(fds[static_cast<size_t>(index)]);
        },
        this);
  }

  /**
   * What poll(2) found, as the stack can bear it. It reads from a socket that has an error or hangs up, asked for or not, and
   * aborts where its buffer is full. Writing finds the error as well.
   */
  static int Events(const pollfd& fd) {
    if (fd.events & POLLIN) return FromPoll(fd.revents);
    return fd.revents & (POLLOUT | POLLERR | POLLHUP) ? slirp::kOut : 0;
  }

  static short ToPoll(int events) {
    return static_cast<short>((events & slirp::kIn ? POLLIN : 0) | (events & slirp::kOut ? POLLOUT : 0) |
                              (events & slirp::kPriority ? POLLPRI : 0) | (events & slirp::kError ? POLLERR : 0) |
                              (events & slirp::kHangUp ? POLLHUP : 0));
  }

  static int FromPoll(short events) {
    return (events & POLLIN ? slirp::kIn : 0) | (events & POLLOUT ? slirp::kOut : 0) |
           (events & POLLPRI ? slirp::kPriority : 0) | (events & POLLERR ? slirp::kError : 0) |
           (events & POLLHUP ? slirp::kHangUp : 0);
  }

  /** The stack is about to close it: the kernel takes it out of the set by itself. */
  void Forget(int fd) {
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
    watched_.erase(fd);
  }

  ssize_t Send(const void* frame, size_t length) {
    if (length > kFrameSize) return static_cast<ssize_t>(length);
    memcpy(frame_bytes_, frame, length);
    const Napi::Env env = frame_ready_.Env();
    const Napi::HandleScope scope(env);
    Call(frame_ready_, Napi::Number::New(env, static_cast<double>(length)));
    return static_cast<ssize_t>(length);
  }

  void GuestError(const char* message) {
    const Napi::Env env = guest_error_.Env();
    const Napi::HandleScope scope(env);
    Call(guest_error_, Napi::String::New(env, message));
  }

  void Call(const Napi::FunctionReference& function, napi_value argument) {
    const Napi::Env env = function.Env();
    napi_value result;
    const napi_status status =
        in_call_ ? napi_call_function(env, env.Global(), function.Value(), 1, &argument, &result)
                 : napi_make_callback(env, async_context_, env.Global(), function.Value(), 1, &argument, &result);
    if (status != napi_pending_exception) return;
    napi_value exception;
    napi_get_and_clear_last_exception(env, &exception);
    napi_fatal_exception(env, exception);
  }

  Timer* NewTimer(void (*fire)(void*), void* opaque) {
    auto* timer = new Timer{{}, fire, opaque};
    timer->handle.data = timer;
    uv_timer_init(loop_, &timer->handle);
    uv_unref(reinterpret_cast<uv_handle_t*>(&timer->handle));
    timers_.insert(timer);
    return timer;
  }

  void FreeTimer(Timer* timer) {
    if (timers_.erase(timer) == 0) return;
    uv_close(reinterpret_cast<uv_handle_t*>(&timer->handle), [](uv_handle_t* handle) { delete static_cast<Timer*>(handle->data); });
  }

  static void SetTimer(Timer* timer, int64_t expire_ms) {
    const auto now = static_cast<int64_t>(MonotonicNs() / 1000000);
    const uint64_t delay = expire_ms > now ? static_cast<uint64_t>(expire_ms - now) : 0;
    uv_timer_start(
        &timer->handle, [](uv_timer_t* handle) { static_cast<Timer*>(handle->data)->fire(static_cast<Timer*>(handle->data)->opaque); },
        delay, 0);
  }

  void CheckOpen(Napi::Env env) const {
    if (stack_ == nullptr) throw Napi::Error::New(env, "this network is closed");
  }

  Napi::Value Frame(const Napi::CallbackInfo&) { return frame_.Value(); }

  // input(bytes, length): a frame from the guest
  void Input(const Napi::CallbackInfo& info) {
    if (stack_ == nullptr) return;
    const Bytes bytes = BytesOf(info[0], "the frame");
    const size_t length = info[1].As<Napi::Number>().Uint32Value();
    if (length > bytes.length) throw Napi::RangeError::New(info.Env(), "the frame is shorter than that");
    if (inside_ > 0) {
      // An answer to a frame that the stack is sending: it is at work on its sockets, and would lose its place.
      if (waiting_.size() < kMostWaiting) waiting_.emplace_back(bytes.data, bytes.data + length);
      return;
    }
    const bool outer = !in_call_;
    in_call_ = true;
    {
      const Inside inside(this);
      library_->input(stack_, bytes.data, static_cast<int>(length));
    }
    if (!outer) return;
    in_call_ = false;
    if (stack_ != nullptr) Refill();
  }

  /** Frames that came while the stack was at work; answers to their answers come at the end of the line. */
  void TakeWaiting() {
    for (size_t next = 0; next < waiting_.size() && !close_wanted_; next++) {
      const std::vector<uint8_t> frame = std::move(waiting_[next]);
      library_->input(stack_, frame.data(), static_cast<int>(frame.size()));
    }
    waiting_.clear();
  }

  // addHostForward(udp, hostAddress, hostPort, guestAddress, guestPort): false where the host's port is taken
  Napi::Value AddHostForward(const Napi::CallbackInfo& info) {
    CheckOpen(info.Env());
    const int result = library_->add_hostfwd(stack_, info[0].ToBoolean(), Address(info[1]), info[2].ToNumber().Int32Value(),
                                             Address(info[3]), info[4].ToNumber().Int32Value());
    if (result == 0) Refill();
    return Napi::Boolean::New(info.Env(), result == 0);
  }

  // removeHostForward(udp, hostAddress, hostPort): false where there is no such forward
  Napi::Value RemoveHostForward(const Napi::CallbackInfo& info) {
    CheckOpen(info.Env());
    const int result =
        library_->remove_hostfwd(stack_, info[0].ToBoolean(), Address(info[1]), info[2].ToNumber().Int32Value());
    return Napi::Boolean::New(info.Env(), result == 0);
  }

  // addGuestForward('unix' or 'command', target, guestAddress, guestPort)
  Napi::Value AddGuestForward(const Napi::CallbackInfo& info) {
    CheckOpen(info.Env());
    const std::string kind = info[0].As<Napi::String>(), target = info[1].As<Napi::String>();
    in_addr guest = Address(info[2]);
    const int port = info[3].ToNumber().Int32Value();
    const int result = kind == "unix" ? library_->add_unix(stack_, target.c_str(), &guest, port)
                                      : library_->add_exec(stack_, target.c_str(), &guest, port);
    return Napi::Boolean::New(info.Env(), result == 0);
  }

  Napi::Value ConnectionInfo(const Napi::CallbackInfo& info) {
    CheckOpen(info.Env());
    char* text = library_->connection_info(stack_);
    const Napi::Value result = Napi::String::New(info.Env(), text);
    library_->free(text);
    return result;
  }

  void Close(const Napi::CallbackInfo&) { CloseAll(); }

  void CloseAll() {
    if (stack_ == nullptr) return;
    if (inside_ > 0) {
      close_wanted_ = true;
      return;
    }
    slirp::Stack* stack = stack_;
    stack_ = nullptr;
    library_->cleanup(stack);
    while (!timers_.empty()) FreeTimer(*timers_.begin());
    handles_->owner = nullptr;
    const uv_close_cb closed = [](uv_handle_t* handle) {
      auto* handles = static_cast<Handles*>(handle->data);
      if (--handles->open != 0) return;
      napi_remove_async_cleanup_hook(handles->hook);
      delete handles;
    };
    uv_close(reinterpret_cast<uv_handle_t*>(&handles_->poll), closed);
    uv_close(reinterpret_cast<uv_handle_t*>(&handles_->timer), closed);
    uv_close(reinterpret_cast<uv_handle_t*>(&handles_->prepare), closed);
    handles_ = nullptr;
    close(epoll_fd_);
    epoll_fd_ = -1;
  }

  const slirp::Library* library_ = nullptr;
  slirp::Callbacks callbacks_ = {};
  slirp::Stack* stack_ = nullptr;
  uv_loop_t* loop_ = nullptr;
  Handles* handles_ = nullptr;
  int epoll_fd_ = -1;
  /** What the stack waited for when it was last asked, by its own indices. */
  std::vector<pollfd> fds_;
  /** The stack has been at work since. */
  bool stale_ = true;
  /** What is in the epoll set. */
  std::map<int, uint32_t> watched_;
  std::set<Timer*> timers_;
  std::vector<std::vector<uint8_t>> waiting_;
  Napi::FunctionReference frame_ready_;
  Napi::FunctionReference guest_error_;
  Napi::AsyncContext async_context_;
  Napi::Reference<Napi::Uint8Array> frame_;
  uint8_t* frame_bytes_ = nullptr;
  /** JavaScript has called us: its callbacks are called back directly. */
  bool in_call_ = false;
  int inside_ = 0;
  bool close_wanted_ = false;
};

}  // namespace

Napi::Function DefineSlirp(Napi::Env env) { return SlirpStack::Define(env); }

}  // namespace southbridge
