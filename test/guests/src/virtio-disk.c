/* virtio-blk over PCI (virtio 1.2, sections 2.7, 4.1 and 5.2): one split queue, indirect descriptors, event indices, MSI-X. */
#include "disks.h"

#define VENDOR 0x1af4
#define LEGACY_DEVICE 0x1001
#define MODERN_DEVICE 0x1042
#define CAP_VENDOR 9
#define CAP_MSIX 0x11
enum { COMMON = 1, NOTIFY = 2, DEVICE = 4 };

/* Common configuration (4.1.4.3) */
enum { FEATURE_SELECT = 0x08, FEATURES = 0x0c, STATUS = 0x14, QUEUE_SELECT = 0x16, QUEUE_SIZE = 0x18, QUEUE_VECTOR = 0x1a,
       QUEUE_ENABLE = 0x1c, QUEUE_NOTIFY_OFF = 0x1e, QUEUE_DESC = 0x20, QUEUE_DRIVER = 0x28, QUEUE_DEVICE = 0x30 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
/* Without it a device writes through (5.2.5): each write would wait for the host's disk, which no stock driver asks for. */
#define F_FLUSH (1u << 9)
#define F_INDIRECT (1u << 28)
#define F_EVENT_IDX (1u << 29)
#define F_VERSION_1_HIGH 1u
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { IN = 0, OUT = 1 };

#define RING 32
struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
static struct descriptor descriptors[RING] __attribute__((aligned(16)));
static struct { volatile uint16_t flags, index, ring[RING], used_event; } available __attribute__((aligned(2)));
static struct { volatile uint16_t flags, index; volatile struct { uint32_t id, length; } ring[RING]; volatile uint16_t avail_event; }
    used __attribute__((aligned(4)));
static struct { struct descriptor table[3]; uint32_t type, reserved; uint64_t sector; volatile uint8_t status; }
    requests[SLOTS] __attribute__((aligned(16)));
static uint16_t submitted, told, seen;
static uintptr_t doorbell, device;

static inline void write8(uintptr_t at, uint8_t value) { *(volatile uint8_t *)at = value; }
static inline void write16(uintptr_t at, uint16_t value) { *(volatile uint16_t *)at = value; }
static inline uint16_t read16(uintptr_t at) { return *(volatile uint16_t *)at; }
/* Later loads must not pass earlier stores (2.7.13.4.1). A locked instruction: SSE's fence is not of every CPU. */
static inline void full_barrier(void) { __sync_synchronize(); }

static void write64(uintptr_t at, const volatile void *value)
{
    write32(at, (uint32_t)(uintptr_t)value);
    write32(at + 4, 0);
}

static bool start(void)
{
    unsigned pci = pci_find(VENDOR, LEGACY_DEVICE);
    if (pci == PCI_NONE) pci = pci_find(VENDOR, MODERN_DEVICE);
    if (pci == PCI_NONE) return false;
    pci_write(pci, 4, pci_read(pci, 4) | 6); /* memory, bus master */
    uintptr_t common = 0, notify = 0;
    uint32_t multiplier = 0;
    for (unsigned cap = pci_capability(pci, CAP_VENDOR, 0); cap; cap = pci_capability(pci, CAP_VENDOR, cap)) {
        unsigned type = pci_read(pci, cap) >> 24;
        uintptr_t at = pci_bar(pci, pci_read(pci, cap + 4) & 0xff) + pci_read(pci, cap + 8);
        if (type == COMMON) common = at;
        if (type == DEVICE) device = at;
        if (type == NOTIFY) {
            notify = at;
            multiplier = pci_read(pci, cap + 16);
        }
    }
    unsigned msix = pci_capability(pci, CAP_MSIX, 0);
    if (!common || !notify || !device || !msix) fail("not a virtio 1.0 disk");
    uint32_t table = pci_read(pci, msix + 4);
    uintptr_t entry = pci_bar(pci, table & 7) + (table & ~7u);
    write32(entry, MESSAGE_ADDRESS);
    write32(entry + 4, 0);
    write32(entry + 8, MESSAGE_VECTOR);
    write32(entry + 12, 0);
    pci_write(pci, msix, pci_read(pci, msix) | 1u << 31);

    write8(common + STATUS, 0);
    write8(common + STATUS, ACKNOWLEDGE | DRIVER);
    write32(common + FEATURE_SELECT, 0);
    write32(common + FEATURES, F_FLUSH | F_INDIRECT | F_EVENT_IDX);
    write32(common + FEATURE_SELECT, 1);
    write32(common + FEATURES, F_VERSION_1_HIGH);
    write8(common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    write16(common + QUEUE_SELECT, 0);
    write16(common + QUEUE_SIZE, RING);
    write16(common + QUEUE_VECTOR, 0);
    write64(common + QUEUE_DESC, descriptors);
    write64(common + QUEUE_DRIVER, &available);
    write64(common + QUEUE_DEVICE, &used);
    doorbell = notify + read16(common + QUEUE_NOTIFY_OFF) * multiplier;
    write16(common + QUEUE_ENABLE, 1);
    write8(common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return true;
}

static uint32_t sectors(void) { return read32(device); }

static void submit(unsigned slot, bool write, uint32_t sector, uint32_t bytes)
{
    struct descriptor *table = requests[slot].table;
    requests[slot].type = write ? OUT : IN;
    requests[slot].sector = sector;
    requests[slot].status = 0xff;
    table[0] = (struct descriptor){ (uintptr_t)&requests[slot].type, 16, NEXT, 1 };
    table[1] = (struct descriptor){ buffer_of(slot), bytes, write ? NEXT : NEXT | WRITE, 2 };
    table[2] = (struct descriptor){ (uintptr_t)&requests[slot].status, 1, WRITE, 0 };
    descriptors[slot] = (struct descriptor){ (uintptr_t)table, sizeof requests[slot].table, INDIRECT, 0 };
    available.ring[submitted % RING] = (uint16_t)slot;
    barrier();
    available.index = ++submitted;
}

static void kick(void)
{
    full_barrier();
    /* vring_need_event of section 2.7.10. */
    if ((uint16_t)(submitted - used.avail_event - 1) < (uint16_t)(submitted - told)) write16(doorbell, 0);
    told = submitted;
}

static uint32_t reap(void)
{
    uint32_t finished = 0;
    while (used.index != seen) {
        barrier();
        unsigned slot = used.ring[seen++ % RING].id;
        if (requests[slot].status != 0) fail("virtio-blk: a request failed");
        finished |= 1u << slot;
    }
    return finished;
}

static bool may_sleep(void)
{
    available.used_event = seen;
    full_barrier();
    return used.index == seen;
}

const struct disk virtio_disk = { "virtio", start, sectors, submit, kick, reap, may_sleep };
