/*
 * Exits, timed by the guest itself: reads of a port and of a register in memory, as many as the command line says
 * (pio=N, mmio=N, port=HEX, mmio-at=HEX). The results are in time stamp counter cycles: the same host, the same clock.
 */
#include "guest.h"

static inline uint64_t cycles(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static uint32_t option(const char *line, const char *name, uint32_t otherwise, unsigned base)
{
    const char *at = strstr(line, name);
    if (!at) return otherwise;
    uint32_t value = 0;
    for (at += strlen(name);; at++) {
        uint32_t digit = *at >= '0' && *at <= '9' ? (uint32_t)(*at - '0') : *at >= 'a' && *at <= 'f' ? (uint32_t)(*at - 'a') + 10 : 16;
        if (digit >= base) return value;
        value = value * base + digit;
    }
}

static void report(const char *what, uint32_t count, uint64_t elapsed)
{
    /* No 64-bit division without a library: the sums are small enough once scaled. */
    unsigned shift = 0;
    while (elapsed >> shift > 0xffffffffu) shift++;
    print("bench: %s %u cycles-each %u\n", what, count, ((uint32_t)(elapsed >> shift) / count) << shift);
}

void main(const uint32_t *info)
{
    const char *line = command_line(info);
    uint32_t pio = option(line, "pio=", 20000, 10);
    uint32_t mmio = option(line, "mmio=", 20000, 10);
    uint16_t port = (uint16_t)option(line, "port=", 0x3fd, 16);
    uint32_t address = option(line, "mmio-at=", 0xfed00000, 16);

    console_start();
#ifdef RING3
    enter_ring3();
#endif
    print("bench: begin ring %u, %u bits\n", current_ring(), (unsigned)sizeof(void *) * 8);
    uint64_t start = cycles();
    for (uint32_t i = 0; i < pio; i++) (void)inb(port);
    if (pio) report("pio", pio, cycles() - start);
    start = cycles();
    for (uint32_t i = 0; i < mmio; i++) (void)read32(address);
    if (mmio) report("mmio", mmio, cycles() - start);
    leave(0);
}
