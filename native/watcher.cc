#include "watcher.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <system_error>

namespace southbridge {

uint64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

Watcher::Watcher(int backend_fd, std::function<void()> on_loop, std::function<void()> on_timer)
    : backend_fd_(backend_fd), on_loop_(std::move(on_loop)), on_timer_(std::move(on_timer)) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  quit_fd_ = eventfd(0, EFD_CLOEXEC);
  if (epoll_fd_ < 0 || timer_fd_ < 0 || quit_fd_ < 0) {
    error_ = errno;
    return;
  }
  Control(0, EPOLL_CTL_ADD);
  for (const int fd : {timer_fd_, quit_fd_}) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) < 0) error_ = errno;
  }
  if (error_ != 0) return;
  // The process's signals are for Node's threads: this one takes none.
  sigset_t all, previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  try {
    thread_ = std::thread(&Watcher::Main, this);
    pthread_setname_np(thread_.native_handle(), "sb-watcher");
  } catch (const std::system_error& failure) {
    error_ = failure.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
}

Watcher::~Watcher() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (write(quit_fd_, &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  for (const int fd : {epoll_fd_, timer_fd_, quit_fd_}) {
    if (fd >= 0) close(fd);
  }
}

void Watcher::Control(uint32_t events, int operation) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = backend_fd_;
  if (epoll_ctl(epoll_fd_, operation, backend_fd_, &event) < 0) error_ = errno;
}

void Watcher::ArmLoop() { Control(EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD); }

void Watcher::DisarmLoop() { Control(0, EPOLL_CTL_MOD); }

void Watcher::SetTimer(uint64_t deadline_ns) {
  itimerspec spec = {};
  spec.it_value.tv_sec = static_cast<time_t>(deadline_ns / 1000000000u);
  spec.it_value.tv_nsec = static_cast<long>(deadline_ns % 1000000000u);
  timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &spec, nullptr);
}

void Watcher::Main() {
  epoll_event events[3];
  for (;;) {
    const int count = epoll_wait(epoll_fd_, events, 3, -1);
    for (int index = 0; index < count; index++) {
      const int fd = events[index].data.fd;
      if (fd == quit_fd_) return;
      if (fd == timer_fd_) {
        uint64_t expirations;
        if (read(timer_fd_, &expirations, sizeof expirations) == sizeof expirations) on_timer_();
        continue;
      }
      // A nested epoll reports events that the loop has taken meanwhile: ask again before disturbing the guest.
      pollfd backend = {backend_fd_, POLLIN, 0};
      if (poll(&backend, 1, 0) > 0) on_loop_();
      else ArmLoop();
    }
  }
}

}  // namespace southbridge
