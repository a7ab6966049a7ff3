/* A SATA disk behind an AHCI controller (AHCI 1.3.1): native command queuing on port 0, one message for all. */
#include "disks.h"

#define CLASS_AHCI 0x010601
#define CAP_MSI 5
#define ABAR 5
enum { GHC = 0x04, IS = 0x08, PORT0 = 0x100 };
enum { PxCLB = 0x00, PxCLBU = 0x04, PxFB = 0x08, PxFBU = 0x0c, PxIS = 0x10, PxIE = 0x14, PxCMD = 0x18, PxTFD = 0x20, PxSSTS = 0x28,
       PxSERR = 0x30, PxSACT = 0x34, PxCI = 0x38 };
#define GHC_IE (1u << 1)
#define GHC_AE (1u << 31)
#define CMD_ST 1u
#define CMD_FRE (1u << 4)
#define TFD_BUSY 0x88u
#define IS_SDBS (1u << 3)
#define IS_ERRORS 0x7d800010u
enum { H2D = 0x27, IDENTIFY = 0xec, READ_FPDMA = 0x60, WRITE_FPDMA = 0x61, LBA = 0x40 };
#define HEADER_WRITE (1u << 6)

static struct { uint32_t flags, transferred, table, table_high, reserved[4]; } list[SLOTS] __attribute__((aligned(1024)));
static volatile uint8_t received[256] __attribute__((aligned(256)));
static struct { uint8_t fis[64], packet[16], reserved[48]; uint32_t address, address_high, zero, length; }
    tables[SLOTS] __attribute__((aligned(128)));
static uint32_t issued, under_way, capacity;
static uintptr_t hba, port;

static void fill(unsigned slot, uint8_t command, bool write, uint32_t bytes)
{
    list[slot].flags = 5 | 1u << 16 | (write ? HEADER_WRITE : 0); /* five words of FIS, one region */
    list[slot].transferred = 0;
    list[slot].table = (uint32_t)(uintptr_t)&tables[slot];
    tables[slot].fis[0] = H2D;
    tables[slot].fis[1] = 0x80;
    tables[slot].fis[2] = command;
    tables[slot].fis[7] = LBA;
    tables[slot].address = (uint32_t)buffer_of(slot);
    tables[slot].length = bytes - 1;
}

static bool start(void)
{
    unsigned pci = pci_find_class(CLASS_AHCI);
    if (pci == PCI_NONE) return false;
    pci_write(pci, 4, pci_read(pci, 4) | 6);
    unsigned msi = pci_capability(pci, CAP_MSI, 0);
    if (!msi) fail("an AHCI controller without MSI");
    bool wide = pci_read(pci, msi) & 1u << 23;
    pci_write(pci, msi + 4, MESSAGE_ADDRESS);
    if (wide) pci_write(pci, msi + 8, 0);
    pci_write(pci, msi + (wide ? 12 : 8), MESSAGE_VECTOR);
    pci_write(pci, msi, pci_read(pci, msi) | 1u << 16);

    hba = pci_bar(pci, ABAR);
    port = hba + PORT0;
    write32(hba + GHC, GHC_AE);
    if ((read32(port + PxSSTS) & 15) != 3) fail("no disk on port 0");
    write32(port + PxCMD, read32(port + PxCMD) & ~(CMD_ST | CMD_FRE));
    while (read32(port + PxCMD) & 0xc000) {}
    write32(port + PxCLB, (uint32_t)(uintptr_t)list);
    write32(port + PxCLBU, 0);
    write32(port + PxFB, (uint32_t)(uintptr_t)received);
    write32(port + PxFBU, 0);
    write32(port + PxCMD, read32(port + PxCMD) | CMD_FRE);
    write32(port + PxSERR, ~0u);
    while (read32(port + PxTFD) & TFD_BUSY) {}
    write32(port + PxCMD, read32(port + PxCMD) | CMD_ST);

    fill(0, IDENTIFY, false, SECTOR);
    write32(port + PxCI, 1);
    while (read32(port + PxCI) & 1) {}
    capacity = *(volatile uint32_t *)(buffer_of(0) + 100 * 2); /* words 100 to 103 */
    write32(port + PxIS, ~0u);
    write32(hba + IS, ~0u);
    write32(port + PxIE, IS_SDBS | IS_ERRORS);
    write32(hba + GHC, GHC_AE | GHC_IE);
    return true;
}

static uint32_t sectors(void) { return capacity; }

static void submit(unsigned slot, bool write, uint32_t sector, uint32_t bytes)
{
    uint8_t *fis = tables[slot].fis;
    fill(slot, write ? WRITE_FPDMA : READ_FPDMA, write, bytes);
    fis[3] = (uint8_t)(bytes / SECTOR);
    fis[11] = (uint8_t)(bytes / SECTOR >> 8);
    fis[4] = (uint8_t)sector;
    fis[5] = (uint8_t)(sector >> 8);
    fis[6] = (uint8_t)(sector >> 16);
    fis[8] = (uint8_t)(sector >> 24);
    fis[12] = (uint8_t)(slot << 3);
    issued |= 1u << slot;
}

static void kick(void)
{
    if (!issued) return;
    barrier();
    write32(port + PxSACT, issued);
    write32(port + PxCI, issued);
    under_way |= issued;
    issued = 0;
}

/* Section 5.5.3: the port's status first, then the controller's; what has left PxSACT has finished. */
static uint32_t reap(void)
{
    if (!(read32(hba + IS) & 1)) return 0;
    uint32_t status = read32(port + PxIS);
    write32(port + PxIS, status);
    write32(hba + IS, 1);
    if (status & IS_ERRORS) fail("ahci: a request failed");
    uint32_t finished = under_way & ~read32(port + PxSACT);
    under_way &= ~finished;
    return finished;
}

static bool may_sleep(void) { return true; }

const struct disk ahci_disk = { "ahci", start, sectors, submit, kick, reap, may_sleep };
