/* What disks.c needs of a disk's driver. Requests are named by their slot, which has a buffer of its own. */
#ifndef DISKS_H
#define DISKS_H

#include "guest.h"

#define SLOTS 32
#define SECTOR 512
#define MOST_BYTES (128u << 10)
/* Above the image and what the loader has put behind it. */
#define BUFFERS 0x2000000u

struct disk {
    const char *name;
    bool (*start)(void); /* false where there is none; fails where it does not work */
    uint32_t (*sectors)(void);
    void (*submit)(unsigned slot, bool write, uint32_t sector, uint32_t bytes);
    void (*kick)(void);     /* tells the device of what was submitted since the last time */
    uint32_t (*reap)(void); /* slots that have finished; fails where a request has */
    bool (*may_sleep)(void); /* asks for the next interrupt; false where something has finished meanwhile */
};

extern const struct disk virtio_disk, ahci_disk;

static inline uintptr_t buffer_of(unsigned slot) { return BUFFERS + slot * MOST_BYTES; }

/* Messages of the device arrive here (MSI, PCI Local Bus Specification 3.0, 6.8). */
#define MESSAGE_ADDRESS 0xfee00000u
#define MESSAGE_VECTOR 0x40

unsigned pci_find_class(uint32_t class); /* class, sub-class and interface */
unsigned pci_capability(unsigned address, uint8_t id, unsigned after); /* its offset, or 0; `after` another one, or 0 */
uintptr_t pci_bar(unsigned address, unsigned bar);

#endif
