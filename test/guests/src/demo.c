/* The guest of `npm start`: looks around, takes interrupts, and puts the edu card through its paces. */
#include "guest.h"

#define CHECK(condition, what) do { if (!(condition)) fail(what); } while (0)

/* QEMU's educational device: docs/specs/edu. */
#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE 0x60
#define EDU_IRQ_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98
#define EDU_BUFFER 0x40000
#define DMA_SIZE 4000 /* the card's buffer has 4096 bytes, of which QEMU refuses to move the last */
#define STATUS_COMPUTING 0x01
#define STATUS_IRQ_ON_FACTORIAL 0x80
#define IRQ_FACTORIAL 0x001
#define IRQ_DMA 0x100
#define DMA_RUN 1
#define DMA_TO_RAM 2
#define DMA_IRQ 4

#define HZ 100

static const struct { uint32_t id; const char *name; } known[] = {
    { 0x12378086, "Intel 440FX host bridge" },   { 0x70008086, "Intel PIIX3 ISA bridge" },
    { 0x70108086, "Intel PIIX3 IDE" },           { 0x71138086, "Intel PIIX4 power management" },
    { 0x29c08086, "Intel Q35 host bridge" },     { 0x29188086, "Intel ICH9 LPC bridge" },
    { 0x29228086, "Intel ICH9 AHCI" },           { 0x29308086, "Intel ICH9 SMBus" },
    { 0x100e8086, "Intel 82540EM (e1000)" },     { 0x11e81234, "educational device (edu)" },
    { 0x11111234, "Bochs VGA" },                 { 0x10001af4, "virtio network" },
    { 0x10011af4, "virtio block" },              { 0x10051af4, "virtio entropy" },
};

static uintptr_t edu;
static volatile uint32_t edu_status;
static volatile uint32_t edu_interrupts;

static void edu_interrupt(unsigned irq)
{
    (void)irq;
    uint32_t status = read32(edu + EDU_IRQ_STATUS);
    if (!status) return;
    write32(edu + EDU_IRQ_ACK, status);
    edu_status |= status;
    edu_interrupts++;
}

static void edu_wait(uint32_t status, const char *what)
{
    uint32_t end = ticks + 2 * HZ;
    while (!(edu_status & status)) {
        CHECK((int32_t)(end - ticks) > 0, what);
        wait_for_interrupt();
    }
    edu_status &= ~status;
}

static void list_pci(void)
{
    print("\nPCI bus 0\n");
    for (unsigned address = 0; address < 32 << 3; address++) {
        if ((address & 7) && !(pci_read(address & ~7u, 0x0c) & 0x00800000)) continue;
        uint32_t id = pci_read(address, 0);
        if (id == 0xffffffff) continue;
        const char *name = "";
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (known[i].id == id) name = known[i].name;
        print("  %02x.%u  %04x:%04x  class %04x  %s\n", address >> 3, address & 7, id & 0xffff, id >> 16, pci_read(address, 8) >> 16, name);
    }
}

/* Without firmware nobody has given the card an address or an interrupt yet. */
static unsigned place_edu(unsigned card)
{
    uint32_t bar = pci_read(card, 0x10) & ~0xfu;
    if (!bar) {
        bar = 0xfea00000;
        pci_write(card, 0x10, bar);
    }
    pci_write(card, 0x04, (pci_read(card, 0x04) & 0xffff) | 0x6); /* memory space, bus master */
    edu = bar;

    unsigned irq = pci_read(card, 0x3c) & 0xff;
    if (irq == 0 || irq > 15) {
        irq = 11;
        unsigned bridge = pci_find(0x8086, 0x7000);
        if (bridge == PCI_NONE) bridge = pci_find(0x8086, 0x2918);
        if (bridge != PCI_NONE) {
            pci_write(bridge, 0x60, irq * 0x01010101u); /* PIRQA to PIRQD */
            if (pci_read(bridge, 0) == 0x29188086) pci_write(bridge, 0x68, irq * 0x01010101u); /* PIRQE to PIRQH */
        }
        pci_write(card, 0x3c, (pci_read(card, 0x3c) & ~0xffu) | irq);
    }
    return irq;
}

static void test_edu(void)
{
    static uint8_t source[DMA_SIZE] __attribute__((aligned(4096)));
    static uint8_t target[DMA_SIZE] __attribute__((aligned(4096)));

    unsigned card = pci_find(0x1234, 0x11e8);
    print("\nedu card\n");
    if (card == PCI_NONE) {
        print("  none (add -device edu)\n");
        return;
    }
    unsigned irq = place_edu(card);
    irq_take(irq, edu_interrupt, true);
    uint32_t id = read32(edu + EDU_ID);
    CHECK((id & 0xffff) == 0x00ed, "the identification register");
    print("  identification   version %u.%u at %08x, IRQ %u\n", id >> 24, id >> 16 & 0xff, (unsigned)edu, irq);

    write32(edu + EDU_LIVENESS, 0x12345678);
    CHECK(read32(edu + EDU_LIVENESS) == ~0x12345678u, "the liveness check");
    print("  liveness         %08x inverted to %08x\n", 0x12345678, read32(edu + EDU_LIVENESS));

    write32(edu + EDU_STATUS, STATUS_IRQ_ON_FACTORIAL);
    write32(edu + EDU_FACTORIAL, 10);
    edu_wait(IRQ_FACTORIAL, "the factorial's interrupt");
    CHECK(read32(edu + EDU_FACTORIAL) == 3628800, "10!");
    print("  factorial        10! = %u, by interrupt\n", read32(edu + EDU_FACTORIAL));

    write32(edu + EDU_IRQ_RAISE, 0x20);
    edu_wait(0x20, "an interrupt on request");
    print("  interrupt        raised on request and acknowledged\n");

    for (unsigned i = 0; i < DMA_SIZE; i++) source[i] = (uint8_t)(i * 7 + 3);
    barrier();
    write32(edu + EDU_DMA_SRC, (uint32_t)(uintptr_t)source);
    write32(edu + EDU_DMA_DST, EDU_BUFFER);
    write32(edu + EDU_DMA_COUNT, DMA_SIZE);
    write32(edu + EDU_DMA_CMD, DMA_RUN | DMA_IRQ);
    edu_wait(IRQ_DMA, "the interrupt of a DMA from RAM");
    write32(edu + EDU_DMA_SRC, EDU_BUFFER);
    write32(edu + EDU_DMA_DST, (uint32_t)(uintptr_t)target);
    write32(edu + EDU_DMA_COUNT, DMA_SIZE);
    write32(edu + EDU_DMA_CMD, DMA_RUN | DMA_TO_RAM | DMA_IRQ);
    edu_wait(IRQ_DMA, "the interrupt of a DMA to RAM");
    barrier();
    CHECK(memcmp(source, target, DMA_SIZE) == 0, "the bytes that DMA brought back");
    print("  DMA              %u bytes to the card and back, equal; %u interrupts in all\n", DMA_SIZE, edu_interrupts);

    uint32_t reads = 0, start;
    wait_ticks(1);
    __asm__ volatile("sti");
    for (start = ticks; ticks - start < HZ / 10; reads++) (void)read32(edu + EDU_ID);
    __asm__ volatile("cli");
    print("  speed            %u register reads a second\n", reads * 10);
}

static uint8_t cmos(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void show_time(void)
{
    uint8_t bcd[6];
    static const uint8_t index[6] = { 9, 8, 7, 4, 2, 0 };
    for (int i = 0; i < 6; i++) bcd[i] = cmos(index[i]);
    print("  clock            20%02x-%02x-%02x %02x:%02x:%02x, read from the RTC\n", bcd[0], bcd[1], bcd[2], bcd[3], bcd[4], bcd[5]);
}

void main(const uint32_t *info)
{
    console_start();
    print("\nSouthbridge demo guest: %u-bit, bare metal, no firmware needed\n", (unsigned)sizeof(void *) * 8);
    if (*command_line(info)) print("  command line     %s\n", command_line(info));
    interrupts_start();
    timer_start(HZ);
    wait_ticks(HZ / 5);
    print("  timer            %u interrupts of the 8254 at %u Hz\n", ticks, HZ);
    show_time();
    list_pci();
    test_edu();
    print("\nAll is well. Powering off through ACPI.\n");
    leave(0);
}
