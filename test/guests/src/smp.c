/* Wakes every other CPU with INIT and start-up IPIs, then interrupts each through its local APIC (SDM volume 3, 8.4 and 10.6). */
#include "guest.h"

#define LAPIC 0xfee00000u
#define LAPIC_ID 0x20
#define LAPIC_SVR 0xf0
#define LAPIC_LVT_LINT0 0x350
#define LVT_EXTINT 0x700
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define ICR_ALL_BUT_SELF 0x000c0000u
#define ICR_INIT 0x4500u
#define ICR_STARTUP 0x4600u
#define ICR_PENDING 0x1000u
#define TRAMPOLINE 0x8000u
#define IPI_VECTOR 0x40
#define IPIS 10
#define HZ 1000

extern const uint8_t ap_trampoline[], ap_trampoline_end[];
extern void ipi_entry(void);
extern volatile uint32_t ap_count, ipi_count;
static volatile uint32_t ready;

static void lapic_on(void)
{
    write32(LAPIC + LAPIC_SVR, 0x1ff);
}

static void ipi(uint32_t command)
{
    write32(LAPIC + LAPIC_ICR_LOW, command);
    while (read32(LAPIC + LAPIC_ICR_LOW) & ICR_PENDING) {}
}

void ap_main(unsigned index)
{
    (void)index;
    load_idt();
    lapic_on();
    __sync_fetch_and_add(&ready, 1);
    for (;;) wait_for_interrupt();
}

void main(const uint32_t *info)
{
    (void)info;
    console_start();
    interrupts_start();
    timer_start(HZ);
    gate(IPI_VECTOR, ipi_entry);
    lapic_on();
    write32(LAPIC + LAPIC_LVT_LINT0, LVT_EXTINT); /* the 8259A go on being heard */
    memcpy((void *)(uintptr_t)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));

    ipi(ICR_ALL_BUT_SELF | ICR_INIT);
    wait_ticks(HZ / 100);
    ipi(ICR_ALL_BUT_SELF | ICR_STARTUP | TRAMPOLINE >> 12);
    wait_ticks(HZ / 10);
    if (!ready) ipi(ICR_ALL_BUT_SELF | ICR_STARTUP | TRAMPOLINE >> 12);
    wait_ticks(HZ / 10);
    print("smp: %u CPUs, the first with APIC id %u\n", ready + 1, read32(LAPIC + LAPIC_ID) >> 24);

    for (unsigned i = 0; i < IPIS; i++) {
        uint32_t before = ipi_count;
        ipi(ICR_ALL_BUT_SELF | IPI_VECTOR);
        for (uint32_t end = ticks + HZ; ipi_count - before < ready;) {
            if ((int32_t)(end - ticks) < 0) fail("an inter-processor interrupt got lost");
            wait_for_interrupt();
        }
    }
    print("smp: %u inter-processor interrupts taken\n", ipi_count);
    leave(0);
}
