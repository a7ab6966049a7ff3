/*
 * A load for a disk: so many requests under way, all of one size and direction, until the time is over. Interrupt-driven,
 * as a real driver is. The command line says which disk (disk=virtio, disk=ahci), for how long each load (ms=N), and which
 * loads, if not all (op=read, bytes=4096, depth=32). All run in one boot, each for half as long first without being counted,
 * and the first for longer (warm=N), so that compilers are done. Each block of 4 KiB begins with its number, which reads check
 * and writes keep; after it writes leave a mark.
 */
#include "disks.h"

#define LAPIC 0xfee00000u
#define LAPIC_EOI 0xb0
#define LAPIC_SVR 0xf0
#define BLOCK 4096u
#define WRITTEN 0x74697277u
/* Prime to all sizes of an image, so that every block gets its turn, and none follows its neighbour. */
#define STRIDE 7919u
/* ACPI power management timer (ACPI 6.4, 4.8.3.3), where SeaBIOS puts it: 24 bits at 3.579545 MHz. */
#define PM_TIMER 0x608
#define PM_TICKS_A_MS 3580u
#define PM_MASK 0xffffffu

struct frame;
static volatile bool interrupted;

__attribute__((interrupt)) static void taken(struct frame *frame)
{
    (void)frame;
    interrupted = true;
    write32(LAPIC + LAPIC_EOI, 0);
}

unsigned pci_find_class(uint32_t class)
{
    for (unsigned address = 0; address < 32 << 3; address++)
        if (pci_read(address, 0) != 0xffffffffu && pci_read(address, 8) >> 8 == class) return address;
    return PCI_NONE;
}

unsigned pci_capability(unsigned address, uint8_t id, unsigned after)
{
    unsigned at = (after ? pci_read(address, after) >> 8 : pci_read(address, 0x34)) & 0xfc;
    while (at && (pci_read(address, at) & 0xff) != id) at = pci_read(address, at) >> 8 & 0xfc;
    return at;
}

uintptr_t pci_bar(unsigned address, unsigned bar)
{
    return pci_read(address, 0x10 + 4 * bar) & ~15u;
}

static void check(unsigned slot, uint32_t sector)
{
    if (read32(buffer_of(slot)) != sector / (BLOCK / SECTOR)) fail("a block holds what was not written to it");
}

static void load(const struct disk *disk, bool write, uint32_t bytes, unsigned depth, uint32_t ms, bool measured)
{
    const uint32_t places = disk->sectors() / (bytes / SECTOR);
    static uint32_t sector_of[SLOTS];
    uint32_t place = 0, done = 0, ticks_so_far = 0, asked_at = 0;
    uint32_t last = inl(PM_TIMER);
    uint32_t under_way = 0, finished = depth == 32 ? ~0u : (1u << depth) - 1;
    bool over = false;
    for (;;) {
        for (uint32_t left = finished; left && !over; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctz(left);
            place += STRIDE;
            while (place >= places) place -= places;
            sector_of[slot] = place * (bytes / SECTOR);
            if (write)
                for (uint32_t at = 0; at < bytes; at += BLOCK) {
                    write32(buffer_of(slot) + at, (sector_of[slot] * SECTOR + at) / BLOCK);
                    write32(buffer_of(slot) + at + 4, WRITTEN);
                }
            disk->submit(slot, write, sector_of[slot], bytes);
            under_way |= 1u << slot;
        }
        disk->kick();
        finished = disk->reap();
        while (!finished && under_way) {
            if (disk->may_sleep())
                while (!interrupted) wait_for_interrupt();
            interrupted = false;
            finished = disk->reap();
        }
        if (!under_way) break;
        under_way &= ~finished;
        for (uint32_t left = finished; left; left &= left - 1) {
            done++;
            if (!write) check((unsigned)__builtin_ctz(left), sector_of[__builtin_ctz(left)]);
        }
        /* Reading the clock is an exit, which is not what is to be measured. */
        if (done - asked_at >= 64 || over) {
            uint32_t now = inl(PM_TIMER);
            ticks_so_far += (now - last) & PM_MASK;
            last = now;
            asked_at = done;
            if (ticks_so_far >= ms * PM_TICKS_A_MS) over = true;
        }
    }
    if (measured) {
        print("disk: %s %s bytes %u depth %u requests %u ticks %u\n", disk->name, write ? "write" : "read", bytes, depth, done,
              ticks_so_far);
    }
}

static uint32_t number(const char *line, const char *name, uint32_t otherwise)
{
    const char *at = strstr(line, name);
    if (!at) return otherwise;
    uint32_t value = 0;
    for (at += strlen(name); *at >= '0' && *at <= '9'; at++) value = value * 10 + (uint32_t)(*at - '0');
    return value;
}

void main(const uint32_t *info)
{
    const char *line = command_line(info);
    const struct disk *disk = strstr(line, "disk=ahci") ? &ahci_disk : &virtio_disk;
    const uint32_t ms = number(line, "ms=", 500), only_bytes = number(line, "bytes=", 0), only_depth = number(line, "depth=", 0);
    uint32_t warm = number(line, "warm=", 2000);
    const bool only_reads = strstr(line, "op=read"), only_writes = strstr(line, "op=write");

    console_start();
    interrupts_start();
    gate(MESSAGE_VECTOR, (void (*)(void))(uintptr_t)taken);
    write32(LAPIC + LAPIC_SVR, 0x1ff);
    if (!disk->start()) fail("there is no such disk");
    print("disk: %s begin, %u sectors\n", disk->name, disk->sectors());
    for (unsigned write = 0; write < 2; write++)
        for (uint32_t bytes = BLOCK; bytes <= MOST_BYTES; bytes *= MOST_BYTES / BLOCK)
            for (unsigned depth = 1; depth <= SLOTS; depth *= SLOTS) {
                if ((write ? only_reads : only_writes) || (only_bytes && bytes != only_bytes) || (only_depth && depth != only_depth))
                    continue;
                load(disk, write, bytes, depth, warm, false);
                warm = ms / 2;
                print("disk: %s %s bytes %u depth %u warm\n", disk->name, write ? "write" : "read", bytes, depth);
                load(disk, write, bytes, depth, ms, true);
            }
    leave(0);
}
