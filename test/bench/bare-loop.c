// The floor for exits.ts: the same guest under a loop of KVM_RUN and nothing else. bare-loop IMAGE EXITS
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BIOS_SIZE = 0x10000, RAM_SIZE = 0xa0000 };

static void slot(int vm, unsigned number, unsigned flags, unsigned long gpa, size_t size, void *memory) {
  struct kvm_userspace_memory_region region = {number, flags, gpa, size, (unsigned long)memory};
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) exit(2);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0), image = open(argv[1], O_RDONLY);
  __u64 identity_map = 0xfeffc000;
  struct kvm_pit_config pit = {0};
  ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
  ioctl(vm, KVM_SET_TSS_ADDR, 0xfeffd000);
  ioctl(vm, KVM_CREATE_IRQCHIP, 0);
  ioctl(vm, KVM_CREATE_PIT2, &pit);
  char *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char *bios = mmap(NULL, BIOS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (read(image, bios, BIOS_SIZE) != BIOS_SIZE) return 2;
  slot(vm, 0, 0, 0, RAM_SIZE, ram);
  slot(vm, 1, KVM_MEM_READONLY, 0xf0000, BIOS_SIZE, bios);
  slot(vm, 2, KVM_MEM_READONLY, 0x100000000 - BIOS_SIZE, BIOS_SIZE, bios);
  const int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);

  const long exits = atol(argv[2]);
  struct timespec before, after;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  for (long count = 0; count < exits; count++) {
    if (ioctl(cpu, KVM_RUN, 0) < 0 || (run->exit_reason != KVM_EXIT_IO && run->exit_reason != KVM_EXIT_MMIO)) return 3;
  }
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  printf("%ld\n", (after.tv_sec - before.tv_sec) * 1000000000L + (after.tv_nsec - before.tv_nsec));
  return 0;
}
