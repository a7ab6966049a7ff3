#include "guest.h"

#define COM1 0x3f8
#define PIC1 0x20
#define PIC2 0xa0
#define ELCR 0x4d0
#define PIT 0x40
#define PIT_HZ 1193182
#define DEBUG_EXIT 0xf4

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    while (size--) *t++ = *f++;
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *t = to;
    while (size--) *t++ = (uint8_t)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (; size; size--, x++, y++)
        if (*x != *y) return *x - *y;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length]) length++;
    return length;
}

const char *strstr(const char *text, const char *part)
{
    size_t length = strlen(part);
    for (; *text; text++)
        if (strlen(text) >= length && memcmp(text, part, length) == 0) return text;
    return NULL;
}

/* 16550A at 115200 baud, 8N1, FIFOs on, no interrupts. */
void console_start(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x03);
    outb(COM1 + 2, 0x07);
    outb(COM1 + 4, 0x0b);
}

static void put(char c)
{
    if (c == '\n') put('\r');
    while (!(inb(COM1 + 5) & 0x20)) {}
    outb(COM1, (uint8_t)c);
}

static void put_padded(const char *text, size_t length, int width, bool left, char pad)
{
    for (int i = (int)length; !left && i < width; i++) put(pad);
    for (size_t i = 0; i < length; i++) put(text[i]);
    for (int i = (int)length; left && i < width; i++) put(' ');
}

static void put_number(uint32_t value, unsigned base, bool negative, int width, bool left, char pad)
{
    char digits[12];
    size_t at = sizeof digits;
    do digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    if (negative) digits[--at] = '-';
    put_padded(digits + at, sizeof digits - at, width, left, pad);
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        bool left = false;
        char pad = ' ';
        int width = 0;
        for (format++; *format == '-' || *format == '0'; format++) {
            if (*format == '-') left = true;
            else pad = '0';
        }
        for (; *format >= '0' && *format <= '9'; format++) width = width * 10 + *format - '0';
        switch (*format) {
        case 's': {
            const char *text = va_arg(args, const char *);
            put_padded(text, strlen(text), width, left, ' ');
            break;
        }
        case 'd': {
            int value = va_arg(args, int);
            put_number(value < 0 ? 0u - (uint32_t)value : (uint32_t)value, 10, value < 0, width, left, pad);
            break;
        }
        case 'u': put_number(va_arg(args, unsigned), 10, false, width, left, pad); break;
        case 'x': put_number(va_arg(args, unsigned), 16, false, width, left, pad); break;
        case 'c': put((char)va_arg(args, int)); break;
        default: put(*format);
        }
    }
    va_end(args);
}

/* Interrupts: the 8259A pair at vectors 0x20 to 0x2f (8259A datasheet, ICW1 to ICW4). */

#define FIRST_VECTOR 0x20
#define VECTORS 0x41

static handler handlers[16];
extern uint8_t vectors[16][16];

#ifdef __x86_64__
static struct { uint16_t low, selector, type, middle; uint32_t high, zero; } idt[VECTORS] __attribute__((aligned(16)));
#else
static struct { uint16_t low, selector, type, high; } idt[VECTORS] __attribute__((aligned(16)));
#endif

void interrupt(unsigned irq)
{
    if (irq == 7 || irq == 15) {
        /* A request that went away before it was acknowledged: in-service register bit 7 is clear (8259A, OCW3). */
        uint16_t pic = irq == 7 ? PIC1 : PIC2;
        outb(pic, 0x0b);
        if (!(inb(pic) & 0x80)) {
            if (irq == 15) outb(PIC1, 0x20);
            return;
        }
    }
    if (handlers[irq]) handlers[irq](irq);
    if (irq >= 8) outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

void load_idt(void)
{
    struct { uint16_t limit; uintptr_t base; } __attribute__((packed)) pointer = { sizeof idt - 1, (uintptr_t)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void gate(unsigned vector, void (*with)(void))
{
    uintptr_t entry = (uintptr_t)with;
    idt[vector].low = (uint16_t)entry;
    idt[vector].selector = 0x08;
    idt[vector].type = 0x8e00;
#ifdef __x86_64__
    idt[vector].middle = (uint16_t)(entry >> 16);
    idt[vector].high = (uint32_t)(entry >> 32);
#else
    idt[vector].high = (uint16_t)(entry >> 16);
#endif
}

void interrupts_start(void)
{
    for (unsigned irq = 0; irq < 16; irq++) gate(FIRST_VECTOR + irq, (void (*)(void))(uintptr_t)vectors[irq]);
    load_idt();
    outb(PIC1, 0x11);
    outb(PIC2, 0x11);
    outb(PIC1 + 1, FIRST_VECTOR);
    outb(PIC2 + 1, FIRST_VECTOR + 8);
    outb(PIC1 + 1, 1 << 2);
    outb(PIC2 + 1, 2);
    outb(PIC1 + 1, 1);
    outb(PIC2 + 1, 1);
    outb(PIC1 + 1, 0xfb);
    outb(PIC2 + 1, 0xff);
}

void irq_take(unsigned irq, handler with, bool level)
{
    uint16_t pic = irq < 8 ? PIC1 : PIC2;
    uint8_t bit = (uint8_t)(1u << (irq & 7));
    handlers[irq] = with;
    if (level) outb((uint16_t)(ELCR + (irq >> 3)), inb((uint16_t)(ELCR + (irq >> 3))) | bit);
    outb(pic + 1, inb(pic + 1) & (uint8_t)~bit);
}

volatile uint32_t ticks;

static void tick(unsigned irq)
{
    (void)irq;
    ticks++;
}

/* 8254 counter 0 in mode 2, rate generator. */
void timer_start(unsigned hz)
{
    unsigned divisor = PIT_HZ / hz;
    outb(PIT + 3, 0x34);
    outb(PIT, (uint8_t)divisor);
    outb(PIT, (uint8_t)(divisor >> 8));
    ticks = 0;
    irq_take(0, tick, false);
}

void wait_ticks(uint32_t count)
{
    uint32_t end = ticks + count;
    while ((int32_t)(end - ticks) > 0) wait_for_interrupt();
}

/* PCI configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2). */

uint32_t pci_read(unsigned address, unsigned offset)
{
    outl(0xcf8, 0x80000000u | address << 8 | (offset & 0xfc));
    return inl(0xcfc);
}

void pci_write(unsigned address, unsigned offset, uint32_t value)
{
    outl(0xcf8, 0x80000000u | address << 8 | (offset & 0xfc));
    outl(0xcfc, value);
}

unsigned pci_find(uint16_t vendor, uint16_t device)
{
    for (unsigned address = 0; address < 32 << 3; address++)
        if (pci_read(address, 0) == ((uint32_t)device << 16 | vendor)) return address;
    return PCI_NONE;
}

/* SLP_EN with SLP_TYP 0, which is S5 on PIIX4 and ICH9, in PM1a_CNT (ACPI 6.4, 4.8.3.2.1). */
static void power_off(void)
{
    const uint16_t base = 0x600;
    unsigned piix4 = pci_find(0x8086, 0x7113);
    unsigned ich9 = pci_find(0x8086, 0x2918);
    if (piix4 != PCI_NONE) {
        pci_write(piix4, 0x40, base | 1); /* PMBA */
        pci_write(piix4, 0x80, pci_read(piix4, 0x80) | 1); /* PMREGMISC.PMIOSE */
    } else if (ich9 != PCI_NONE) {
        pci_write(ich9, 0x40, base | 1); /* PMBASE */
        pci_write(ich9, 0x44, 0x80); /* ACPI_CNTL.ACPI_EN */
    }
    outw(base + 4, 1 << 13);
}

_Noreturn void leave(int code)
{
    if (code == 0) power_off();
    else outb(DEBUG_EXIT, (uint8_t)code);
    for (;;) {
        if (current_ring() == 0) __asm__ volatile("cli; hlt");
    }
}

_Noreturn void fail(const char *what)
{
    print("FAIL: %s\n", what);
    leave(1);
}

const char *command_line(const uint32_t *info)
{
    if (!info) return "";
    if (info[0] == 0x336ec578) return (const char *)(uintptr_t)info[6]; /* hvm_start_info.cmdline_paddr */
    return info[0] & 4 ? (const char *)(uintptr_t)info[4] : ""; /* multiboot: flags, cmdline */
}
