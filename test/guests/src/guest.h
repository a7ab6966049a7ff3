/* What every guest needs: ports, a console on COM1, interrupts through the two 8259A, PCI configuration space. */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline uint8_t inb(uint16_t port) { uint8_t v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline uint16_t inw(uint16_t port) { uint16_t v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline uint32_t inl(uint16_t port) { uint32_t v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }

static inline uint32_t read32(uintptr_t address) { return *(volatile uint32_t *)address; }
static inline void write32(uintptr_t address, uint32_t value) { *(volatile uint32_t *)address = value; }
static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }

/* Interrupts on for exactly as long as it takes for the next one: `sti` holds them off until after `hlt` began. */
static inline void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
const char *strstr(const char *text, const char *part);

void console_start(void);
void print(const char *format, ...); /* %s %c %d %u %x with width, 0 and - */

typedef void (*handler)(unsigned irq);
void interrupts_start(void);
void load_idt(void);
void gate(unsigned vector, void (*entry)(void));
void irq_take(unsigned irq, handler, bool level);
extern volatile uint32_t ticks;
void timer_start(unsigned hz);
void wait_ticks(uint32_t count);

uint32_t pci_read(unsigned address, unsigned offset); /* address: bus << 8 | device << 3 | function */
void pci_write(unsigned address, unsigned offset, uint32_t value);
#define PCI_NONE 0xffffffffu
unsigned pci_find(uint16_t vendor, uint16_t device);

static inline unsigned current_ring(void)
{
    unsigned cs;
    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    return cs & 3;
}

#ifdef __x86_64__
/* Goes on in ring 3 with I/O privilege level 3: ports work, interrupts stay off. */
void enter_ring3(void);
#endif

/* Ends the machine: ACPI soft-off for 0, isa-debug-exit at port 0xf4 for anything else. */
_Noreturn void leave(int code);

/* `info` is what main() is given: PVH's or multiboot's information, or nothing. */
const char *command_line(const uint32_t *info);
_Noreturn void fail(const char *what);

#endif
