/*
 * Packets as fast as a card takes or gives them, by polling: card=e1000|virtio, do=send|receive, size=BYTES, count=FRAMES and
 * with do=send, card=e1000 also mss=BYTES: each packet is then one TCP segmentation of `size` bytes. Prints when it begins, which
 * is after warm=FRAMES that do not count, and when it ends; who started it looks at the clock.
 */
#include "guest.h"

#define RING 256
#define BATCH 32
#define BUFFER 0x800
#define LARGE 0x4000 /* what a segmentation is made of */

static uint8_t buffers[RING][BUFFER] __attribute__((aligned(4096)));
static uint8_t large[LARGE] __attribute__((aligned(4096)));
static uint32_t size, count, warm, mss;

static uint32_t option(const char *line, const char *name, uint32_t otherwise)
{
    const char *at = strstr(line, name);
    if (!at) return otherwise;
    uint32_t value = 0;
    for (at += strlen(name); *at >= '0' && *at <= '9'; at++) value = value * 10 + (uint32_t)(*at - '0');
    return value;
}

/* Without firmware nobody has given the card an address yet. */
static uint32_t place(unsigned card, uint32_t otherwise)
{
    uint32_t bar = pci_read(card, 0x10);
    uint32_t flags = bar & 1 ? 3 : 0xf;
    if (!(bar & ~flags)) {
        pci_write(card, 0x10, otherwise);
        bar = otherwise;
    }
    pci_write(card, 0x04, (pci_read(card, 0x04) & 0xffff) | 0x7); /* I/O, memory, bus master */
    return bar & ~flags;
}

/* A broadcast of IPv4 and TCP, from 52:54:00:12:34:57. */
static void fill_frame(uint8_t *frame, uint32_t bytes)
{
    static const uint8_t header[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0x12, 0x34, 0x57, 0x08, 0x00,
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        0x10, 0x00, 0x10, 0x01, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    };
    memset(frame, 0x5a, bytes);
    memcpy(frame, header, sizeof header);
    frame[16] = (uint8_t)((bytes - 14) >> 8);
    frame[17] = (uint8_t)(bytes - 14);
}

/* Whoever sends may lose frames before the card takes any, so that the count begins with the first. */
static void ready(void) { print("net: ready\n"); }
static void progress(uint32_t frames)
{
    static bool begun;
    if (begun || frames < warm) return;
    begun = true;
    print("net: begin\n");
}
static void end(uint32_t frames) { print("net: end %u\n", frames); }

/* Intel 82540EM, legacy descriptors (8254x software developer's manual, 3.2.3 and 3.3.3). */

#define RCTL 0x100
#define TCTL 0x400
#define RDBAL 0x2800
#define RDLEN 0x2808
#define RDH 0x2810
#define RDT 0x2818
#define TDBAL 0x3800
#define TDLEN 0x3808
#define TDH 0x3810
#define TDT 0x3818
#define TX_EOP_IFCS_RS 0x0b000000u
#define TX_CONTEXT_TCP_IP_TSE 0x27000000u
#define TX_DATA_EOP_IFCS_TSE_RS 0x2f100000u
#define DONE 1

struct descriptor { uint32_t low, high, length, status; };
static volatile struct descriptor ring[RING] __attribute__((aligned(128)));

static void e1000_send(uintptr_t base)
{
    write32(base + TDBAL, (uint32_t)(uintptr_t)ring);
    write32(base + TDBAL + 4, 0);
    write32(base + TDLEN, sizeof ring);
    write32(base + TDH, 0);
    write32(base + TDT, 0);
    write32(base + TCTL, 0x0003f0fa);
    uint8_t *data = mss ? large : buffers[0];
    fill_frame(data, size);
    uint32_t tail = 0;
    for (uint32_t sent = 0; sent < warm + count;) {
        uint32_t last = tail;
        progress(sent);
        for (uint32_t i = 0; i < BATCH; i++) {
            volatile struct descriptor *d = &ring[tail];
            if (mss) {
                d->low = 14 | 24 << 8 | 33u << 16;
                d->high = 34 | 50 << 8;
                d->length = TX_CONTEXT_TCP_IP_TSE | (size - 54);
                d->status = 54 << 8 | mss << 16;
                tail = (tail + 1) % RING;
                d = &ring[tail];
            }
            d->low = (uint32_t)(uintptr_t)data;
            d->high = 0;
            d->length = (mss ? TX_DATA_EOP_IFCS_TSE_RS : TX_EOP_IFCS_RS) | size;
            d->status = mss ? 0x0300 : 0;
            last = tail;
            tail = (tail + 1) % RING;
            sent++;
        }
        write32(base + TDT, tail);
        while (!(ring[last].status & DONE)) {}
    }
    end(count);
}

static void e1000_receive(uintptr_t base)
{
    for (uint32_t i = 0; i < RING; i++) {
        ring[i].low = (uint32_t)(uintptr_t)buffers[i];
        ring[i].high = ring[i].status = 0;
    }
    write32(base + RDBAL, (uint32_t)(uintptr_t)ring);
    write32(base + RDBAL + 4, 0);
    write32(base + RDLEN, sizeof ring);
    write32(base + RDH, 0);
    write32(base + RDT, RING - 1);
    write32(base + RCTL, 0x0400801a); /* on, all addresses, 2 KiB buffers, no CRC */
    ready();
    uint32_t head = 0;
    for (uint32_t received = 0; received < warm + count; received++) {
        while (!(ring[head].status & DONE)) {}
        progress(received);
        ring[head].status = 0;
        if (head % BATCH == BATCH - 1) write32(base + RDT, (head - BATCH / 2) % RING);
        head = (head + 1) % RING;
    }
    end(count);
}

static void e1000(bool send)
{
    unsigned card = pci_find(0x8086, 0x100e);
    if (card == PCI_NONE) fail("no 82540EM");
    uintptr_t base = place(card, 0xfea00000);
    write32(base + 0x0d8, 0xffffffff); /* IMC */
    write32(base, read32(base) | 0x40); /* CTRL.SLU */
    if (send) e1000_send(base);
    else e1000_receive(base);
}

/* virtio-net, legacy registers and split queues (virtio 1.2, 4.1.4.10 and 2.7.2). */

#define GUEST_FEATURES 4
#define QUEUE_PFN 8
#define QUEUE_SIZE 12
#define QUEUE_SELECT 14
#define QUEUE_NOTIFY 16
#define STATUS 18
#define ANY_LAYOUT (1u << 27)
#define MRG_RXBUF (1u << 15)
#define HEADER 12
#define DESC_WRITE 2
#define NO_NOTIFY 1

static struct {
    struct { uint32_t low, high, length; uint16_t flags, next; } desc[RING];
    struct { uint16_t flags, index, ring[RING], event; } avail;
    uint8_t gap[4096 - (RING * 2 + 6) % 4096];
    struct { uint16_t flags, index; struct { uint32_t id, length; } ring[RING]; uint16_t event; } used;
} queue __attribute__((aligned(4096)));
#define QUEUE ((volatile typeof(queue) *)&queue)

static void virtio(bool send)
{
    unsigned card = pci_find(0x1af4, 0x1000);
    if (card == PCI_NONE) fail("no virtio-net");
    uint16_t base = (uint16_t)place(card, 0xc001);
    outb(base + STATUS, 0);
    outb(base + STATUS, 3);
    outl(base + GUEST_FEATURES, (inl(base) & (ANY_LAYOUT | MRG_RXBUF)));
    outw(base + QUEUE_SELECT, send ? 1 : 0);
    if (inw(base + QUEUE_SIZE) != RING) fail("not 256 descriptors");
    outl(base + QUEUE_PFN, (uint32_t)(uintptr_t)&queue >> 12);
    QUEUE->avail.flags = 1; /* no interrupts */
    for (uint32_t i = 0; i < RING; i++) {
        QUEUE->desc[i].low = (uint32_t)(uintptr_t)buffers[i];
        QUEUE->desc[i].length = send ? HEADER + size : BUFFER;
        QUEUE->desc[i].flags = send ? 0 : DESC_WRITE;
        QUEUE->avail.ring[i] = (uint16_t)i;
        if (send) fill_frame(buffers[i] + HEADER, size);
    }
    outb(base + STATUS, 7);

    uint16_t seen = 0, made = 0;
    if (!send) {
        made = RING;
        QUEUE->avail.index = made;
        outw(base + QUEUE_NOTIFY, 0);
        ready();
        while (QUEUE->used.index == 0) {}
    }
    for (uint32_t done = 0; done < warm + count;) {
        progress(done);
        if (send) {
            /* What has been used is there to be sent again: the ring of buffers never changes. */
            uint16_t free = (uint16_t)(RING - (uint16_t)(made - seen));
            if (free >= BATCH) {
                made += BATCH;
                barrier();
                QUEUE->avail.index = made;
                __sync_synchronize();
                if (!(QUEUE->used.flags & NO_NOTIFY)) outw(base + QUEUE_NOTIFY, 1);
            }
        }
        uint16_t now = QUEUE->used.index;
        done += (uint16_t)(now - seen);
        if (!send && now != seen) {
            for (; seen != now; seen++, made++)
                QUEUE->avail.ring[made % RING] = (uint16_t)QUEUE->used.ring[seen % RING].id;
            barrier();
            QUEUE->avail.index = made;
            __sync_synchronize();
            if (!(QUEUE->used.flags & NO_NOTIFY)) outw(base + QUEUE_NOTIFY, 0);
        }
        seen = now;
    }
    end(count);
}

void main(const uint32_t *info)
{
    const char *line = command_line(info);
    size = option(line, "size=", 60);
    count = option(line, "count=", 1000);
    warm = option(line, "warm=", 0);
    mss = option(line, "mss=", 0);
    console_start();
    bool send = strstr(line, "do=send") != NULL;
    if (strstr(line, "card=e1000")) e1000(send);
    else virtio(send);
    leave(0);
}
