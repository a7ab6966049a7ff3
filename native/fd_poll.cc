#include <napi.h>
#include <uv.h>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

/** Watches any pollable descriptor in the event loop; it does not own it. */
class FdPoll : public Napi::ObjectWrap<FdPoll> {
 public:
  // new FdPoll(fd, ready(events))
  explicit FdPoll(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<FdPoll>(info),
        callback_(Napi::Persistent(info[1].As<Napi::Function>())),
        async_context_(info.Env(), "southbridge.fd") {
    const Napi::Env env = info.Env();
    uv_loop_t* loop;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw Napi::Error::New(env, "there is no event loop");
    handle_ = new Handle();
    handle_->owner = this;
    handle_->poll.data = handle_;
    if (const int error = uv_poll_init(loop, &handle_->poll, info[0].As<Napi::Number>().Int32Value())) {
      delete handle_;
      handle_ = nullptr;
      throw SystemError(env, "uv_poll_init", -error);
    }
    napi_add_async_cleanup_hook(
        env,
        [](napi_async_cleanup_hook_handle, void* data) {
          auto* handle = static_cast<Handle*>(data);
          if (handle->owner != nullptr) handle->owner->CloseHandle();
        },
        handle_, &handle_->hook);
  }

  ~FdPoll() override { CloseHandle(); }

  // watch(events): UV_READABLE 1, UV_WRITABLE 2, UV_DISCONNECT 4; 0 stops it
  void Watch(const Napi::CallbackInfo& info) {
    if (handle_ == nullptr) return;
    const int events = info[0].As<Napi::Number>().Int32Value();
    const int error = events == 0 ? uv_poll_stop(&handle_->poll) : uv_poll_start(&handle_->poll, events, Ready);
    if (error < 0) throw SystemError(info.Env(), "uv_poll_start", -error);
  }

  void SetRef(const Napi::CallbackInfo& info) {
    if (handle_ == nullptr) return;
    auto* handle = reinterpret_cast<uv_handle_t*>(&handle_->poll);
    if (info[0].ToBoolean()) uv_ref(handle);
    else uv_unref(handle);
  }

  void Close(const Napi::CallbackInfo&) { CloseHandle(); }

 private:
  struct Handle {
    uv_poll_t poll;
    FdPoll* owner;
    napi_async_cleanup_hook_handle hook;
  };

  static void Ready(uv_poll_t* poll, int status, int events) {
    FdPoll* self = static_cast<Handle*>(poll->data)->owner;
    if (self == nullptr) return;
    const Napi::Env env = self->callback_.Env();
    const Napi::HandleScope scope(env);
    const napi_value argument = Napi::Number::New(env, status < 0 ? status : events);
    napi_value result;
    const napi_status outcome =
        napi_make_callback(env, self->async_context_, env.Global(), self->callback_.Value(), 1, &argument, &result);
    if (outcome != napi_pending_exception) return;
    napi_value exception;
    napi_get_and_clear_last_exception(env, &exception);
    napi_fatal_exception(env, exception);
  }

  void CloseHandle() {
    if (handle_ == nullptr) return;
    handle_->owner = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll), [](uv_handle_t* closed) {
      auto* handle = static_cast<Handle*>(closed->data);
      napi_remove_async_cleanup_hook(handle->hook);
      delete handle;
    });
    handle_ = nullptr;
  }

  Napi::FunctionReference callback_;
  Napi::AsyncContext async_context_;
  Handle* handle_ = nullptr;
};

}  // namespace

Napi::Function DefineFdPoll(Napi::Env env) {
  return FdPoll::DefineClass(env, "FdPoll",
                             {FdPoll::InstanceMethod<&FdPoll::Watch>("watch"), FdPoll::InstanceMethod<&FdPoll::SetRef>("setRef"),
                              FdPoll::InstanceMethod<&FdPoll::Close>("close")});
}

}  // namespace southbridge
