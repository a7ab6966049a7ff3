// A program for Linux on i386, not for bare metal: turns the volumes of each OSS mixer that it is given all the way up.
// Shells have no ioctl.

enum { EXIT = 1, OPEN = 5, IOCTL = 54 };
enum { READ_WRITE = 2, WRITE_VOLUME = 0xc0044d00, WRITE_PCM = 0xc0044d04, ALL_THE_WAY = 100 << 8 | 100 };

static int call(int number, unsigned first, unsigned second, unsigned third) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
  return result;
}

__attribute__((used)) static void run(const unsigned *stack) {
  int failed = stack[0] < 2;
  for (unsigned argument = 1; argument < stack[0]; argument++) {
    int mixer = call(OPEN, stack[1 + argument], READ_WRITE, 0);
    unsigned level = ALL_THE_WAY;
    failed |= mixer < 0 || call(IOCTL, mixer, WRITE_PCM, (unsigned)&level) < 0;
    level = ALL_THE_WAY;
    failed |= mixer < 0 || call(IOCTL, mixer, WRITE_VOLUME, (unsigned)&level) < 0;
  }
  call(EXIT, failed, 0, 0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\npush %eax\ncall run\n");
