#pragma once
#include <stdint.h>

#include <functional>
#include <thread>

namespace southbridge {

/**
 * A thread that waits, while the device thread is inside the guest, for what should bring it back: the event loop's
 * backend fd (one-shot, armed a slice at a time) and a timer.
 */
class Watcher {
 public:
  /** Both callbacks run on the watcher's thread. */
  Watcher(int backend_fd, std::function<void()> on_loop, std::function<void()> on_timer);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  /** 0, or the errno that kept it from being set up. */
  int error() const { return error_; }

  void ArmLoop();
  void DisarmLoop();
  /** Absolute nanoseconds of CLOCK_MONOTONIC; 0 stops the timer. */
  void SetTimer(uint64_t deadline_ns);

 private:
  void Main();
  void Control(uint32_t events, int operation);

  const int backend_fd_;
  const std::function<void()> on_loop_;
  const std::function<void()> on_timer_;
  int error_ = 0;
  int epoll_fd_ = -1;
  int timer_fd_ = -1;
  int quit_fd_ = -1;
  std::thread thread_;
};

/** CLOCK_MONOTONIC in nanoseconds: also the time base of libuv's clock. */
uint64_t MonotonicNs();

}  // namespace southbridge
