#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "errors.h"
#include "host.h"

namespace southbridge {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

/** Sets of system calls, as bits; `core/host/sandbox.ts` has the same. */
enum Set : uint32_t { kBase = 1, kObsolete = 2, kPrivileges = 4, kSpawn = 8, kResources = 16 };

struct Denied {
  uint32_t set;
  uint32_t number;
};

/** What a guest's machine never needs. Calls that this architecture does not have are left out. */
constexpr Denied kKilled[] = {
    {kBase, SYS_reboot},
    {kBase, SYS_swapon},
    {kBase, SYS_swapoff},
    {kBase, SYS_syslog},
    {kBase, SYS_mount},
    {kBase, SYS_kexec_load},
#ifdef SYS_umount
    {kBase, SYS_umount},
#endif
#ifdef SYS_afs_syscall
    {kBase, SYS_afs_syscall},
    {kBase, SYS_getpmsg},
    {kBase, SYS_putpmsg},
    {kBase, SYS_security},
    {kBase, SYS_tuxcall},
    {kBase, SYS_vserver},
#endif
#ifdef SYS__sysctl
    {kObsolete, SYS__sysctl},
#endif
#ifdef SYS_create_module
    {kObsolete, SYS_create_module},
    {kObsolete, SYS_get_kernel_syms},
    {kObsolete, SYS_query_module},
    {kObsolete, SYS_sysfs},
    {kObsolete, SYS_uselib},
    {kObsolete, SYS_ustat},
#endif
    {kPrivileges, SYS_setuid},
    {kPrivileges, SYS_setgid},
    {kPrivileges, SYS_setpgid},
    {kPrivileges, SYS_setsid},
    {kPrivileges, SYS_setreuid},
    {kPrivileges, SYS_setregid},
    {kPrivileges, SYS_setresuid},
    {kPrivileges, SYS_setresgid},
    {kPrivileges, SYS_setfsuid},
    {kPrivileges, SYS_setfsgid},
#ifdef SYS_fork
    {kSpawn, SYS_fork},
    {kSpawn, SYS_vfork},
#endif
    {kSpawn, SYS_execve},
    {kSpawn, SYS_execveat},
    {kSpawn, SYS_setns},
    {kSpawn, SYS_unshare},
};

/** Libraries try these and go on without them, so they fail with EPERM instead of ending the program. */
constexpr Denied kRefused[] = {
    {kResources, SYS_setpriority},
    {kResources, SYS_sched_setparam},
    {kResources, SYS_sched_setaffinity},
};

/** Flags that every new thread of the C library has, and those that make of it a process or put it elsewhere. */
constexpr uint32_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
constexpr uint32_t kForeignFlags = CLONE_PIDFD | CLONE_PTRACE | CLONE_VFORK | CLONE_PARENT | CLONE_NEWNS | CLONE_UNTRACED |
                                   CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                                   CLONE_NEWNET | CLONE_IO;

/** A seccomp filter (a BPF program over struct seccomp_data) that allows what no rule denies; seccomp(2). */
class Filter {
 public:
  Filter() {
    Load(offsetof(seccomp_data, arch));
    Add(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0);
    Return(SECCOMP_RET_KILL_PROCESS);
    LoadNumber();
#ifdef __x86_64__
    // The x32 calls have numbers of their own, which no rule names; -1 is what a tracer leaves of a skipped call.
    constexpr uint32_t kX32 = 0x40000000;
    Add(BPF_JMP | BPF_JGE | BPF_K, kX32, 0, 2);
    Add(BPF_JMP | BPF_JEQ | BPF_K, UINT32_MAX, 1, 0);
    Return(SECCOMP_RET_KILL_PROCESS);
#endif
  }

  void Deny(uint32_t number, uint32_t action) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    Return(action);
  }

  /** clone(2) makes threads of this process and nothing else. clone3 has its flags in memory, where no filter sees them. */
  void DenyProcesses() {
    Add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 6);
    Load(offsetof(seccomp_data, args[0]));
    Add(BPF_JMP | BPF_JSET | BPF_K, kForeignFlags, 2, 0);
    Add(BPF_ALU | BPF_AND | BPF_K, kThreadFlags, 0, 0);
    Add(BPF_JMP | BPF_JEQ | BPF_K, kThreadFlags, 1, 0);
    Return(SECCOMP_RET_KILL_PROCESS);
    Return(SECCOMP_RET_ALLOW);
    Deny(SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
  }

  /** A thread may become idle, no more. */
  void DenyScheduler() {
    Add(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setscheduler, 0, 4);
    Load(offsetof(seccomp_data, args[1]));
    Add(BPF_JMP | BPF_JEQ | BPF_K, SCHED_IDLE, 1, 0);
    Return(SECCOMP_RET_ERRNO | EPERM);
    Return(SECCOMP_RET_ALLOW);
  }

  /** Applies it to all threads of this process; false leaves the reason in errno. */
  bool Install() {
    Return(SECCOMP_RET_ALLOW);
    sock_fprog program = {static_cast<unsigned short>(code_.size()), code_.data()};
    // Without the right to administer the host, only a process that can gain no more privileges may filter itself.
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return false;
    const long thread = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    // A positive result is the thread that could not take it.
    if (thread > 0) errno = ESRCH;
    return thread == 0;
  }

 private:
  void Add(uint16_t code, uint32_t value, uint8_t whenTrue, uint8_t whenFalse) {
    code_.push_back({code, whenTrue, whenFalse, value});
  }
  void Load(size_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset), 0, 0); }
  void LoadNumber() { Load(offsetof(seccomp_data, nr)); }
  void Return(uint32_t action) { Add(BPF_RET | BPF_K, action, 0, 0); }

  std::vector<sock_filter> code_;
};

// enterSandbox(sets): from here on this process is without the system calls of these sets
void EnterSandbox(const Napi::CallbackInfo& info) {
  if (kArchitecture == 0) throw SystemError(info.Env(), "seccomp", ENOSYS);
  const uint32_t sets = info[0].As<Napi::Number>().Uint32Value();
  Filter filter;
  for (const Denied& call : kKilled)
    if (sets & call.set) filter.Deny(call.number, SECCOMP_RET_KILL_PROCESS);
  for (const Denied& call : kRefused)
    if (sets & call.set) filter.Deny(call.number, SECCOMP_RET_ERRNO | EPERM);
  if (sets & kSpawn) filter.DenyProcesses();
  if (sets & kResources) filter.DenyScheduler();
  if (!filter.Install()) throw SystemError(info.Env(), "seccomp", errno);
}

// canSandbox(): whether the kernel filters system calls of all threads at once; it looks at the flag before the program
Napi::Value CanSandbox(const Napi::CallbackInfo& info) {
  const long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, nullptr);
  return Napi::Boolean::New(info.Env(), kArchitecture != 0 && result < 0 && errno == EFAULT);
}

}  // namespace

void DefineSandbox(Napi::Env env, Napi::Object exports) {
  exports.Set("enterSandbox", Napi::Function::New<EnterSandbox>(env, "enterSandbox"));
  exports.Set("canSandbox", Napi::Function::New<CanSandbox>(env, "canSandbox"));
}

}  // namespace southbridge
