#pragma once
// The part of libslirp's interface in use (its libslirp.h, versions 4.1 to 4.9), declared here so that the addon builds
// and loads without it: the library is opened when the first user-mode network is made.
#include <netinet/in.h>
#include <stdint.h>
#include <sys/types.h>

namespace southbridge::slirp {

struct Stack;

enum Poll { kIn = 1, kOut = 2, kPriority = 4, kError = 8, kHangUp = 16 };

struct Callbacks {
  ssize_t (*send_packet)(const void* frame, size_t length, void* opaque);
  void (*guest_error)(const char* message, void* opaque);
  int64_t (*clock_get_ns)(void* opaque);
  void* (*timer_new)(void (*fire)(void*), void* fire_opaque, void* opaque);
  void (*timer_free)(void* timer, void* opaque);
  void (*timer_mod)(void* timer, int64_t expire_ms, void* opaque);
  void (*register_poll_fd)(int fd, void* opaque);
  void (*unregister_poll_fd)(int fd, void* opaque);
  void (*notify)(void* opaque);
  // Looked at from configuration version 4 on; none of them is needed.
  void* init_completed;
  void* timer_new_opaque;
};

struct Config {
  uint32_t version;
  int restricted;
  bool in_enabled;
  in_addr network, mask, host;
  bool in6_enabled;
  in6_addr prefix6;
  uint8_t prefix6_length;
  in6_addr host6;
  const char* host_name;
  const char* tftp_server_name;
  const char* tftp_path;
  const char* boot_file;
  in_addr dhcp_start, name_server;
  in6_addr name_server6;
  const char** dns_search;
  const char* domain_name;
  size_t mtu, mru;
  bool disable_host_loopback;
  bool enable_emulation;
  // Version 2
  sockaddr_in* outbound;
  sockaddr_in6* outbound6;
  // Version 3
  bool disable_dns;
  // Version 4
  bool disable_dhcp;
};

struct Library {
  Stack* (*create)(const Config*, const Callbacks*, void* opaque);
  void (*cleanup)(Stack*);
  void (*pollfds_fill)(Stack*, uint32_t* timeout_ms, int (*add)(int fd, int events, void*), void*);
  void (*pollfds_poll)(Stack*, int error, int (*revents)(int index, void*), void*);
  void (*input)(Stack*, const uint8_t* frame, int length);
  int (*add_hostfwd)(Stack*, int udp, in_addr host, int host_port, in_addr guest, int guest_port);
  int (*remove_hostfwd)(Stack*, int udp, in_addr host, int host_port);
  int (*add_exec)(Stack*, const char* command, in_addr* guest, int guest_port);
  int (*add_unix)(Stack*, const char* path, in_addr* guest, int guest_port);
  char* (*connection_info)(Stack*);
  const char* (*version_string)();
  void (*free)(void*);
};

/** The library, opened once; null, and why in `error`, where this host does not have it. */
const Library* OpenLibrary(const char** error);

}  // namespace southbridge::slirp
