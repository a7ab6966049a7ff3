// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Driver of the stopwatch card. /sys/bus/isa/devices/isa_stopwatch.0/alarm takes microseconds, sleeps, and shows how many it was. */
#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/isa.h>
#include <linux/module.h>

enum { ID, CONTROL, STATUS, MICROSECONDS = 4, PORTS = 8 };
enum { RUN = 1 << 0, IRQ_ENABLE = 1 << 1, CLEAR = 1 << 7 };
#define ID_STOPWATCH 0x5a
#define STATUS_ALARM 1

static unsigned short iobase = 0x300;
static int irq = 5;
module_param(iobase, ushort, 0444);
module_param(irq, int, 0444);

static DECLARE_COMPLETION(rung);
static unsigned int took;

static irqreturn_t ring(int line, void *data)
{
	if (!(inb(iobase + STATUS) & STATUS_ALARM))
		return IRQ_NONE;
	outb(STATUS_ALARM, iobase + STATUS);
	complete(&rung);
	return IRQ_HANDLED;
}

static ssize_t alarm_store(struct device *device, struct device_attribute *attribute, const char *text, size_t count)
{
	unsigned int microseconds;

	if (kstrtouint(text, 0, &microseconds))
		return -EINVAL;
	reinit_completion(&rung);
	outl(microseconds, iobase + MICROSECONDS);
	outb(CLEAR | RUN | IRQ_ENABLE, iobase + CONTROL);
	if (!wait_for_completion_timeout(&rung, usecs_to_jiffies(microseconds) + 5 * HZ))
		return -ETIMEDOUT;
	outb(0, iobase + CONTROL);
	took = inl(iobase + MICROSECONDS);
	return count;
}

static ssize_t alarm_show(struct device *device, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", took);
}
static DEVICE_ATTR_RW(alarm);

static struct attribute *stopwatch_attrs[] = { &dev_attr_alarm.attr, NULL };
ATTRIBUTE_GROUPS(stopwatch);

static int match(struct device *device, unsigned int id)
{
	return inb(iobase + ID) == ID_STOPWATCH;
}

static int probe(struct device *device, unsigned int id)
{
	if (!devm_request_region(device, iobase, PORTS, KBUILD_MODNAME))
		return -EBUSY;
	return devm_request_irq(device, irq, ring, 0, KBUILD_MODNAME, device);
}

static struct isa_driver isa_stopwatch = {
	.match = match,
	.probe = probe,
	.driver.name = KBUILD_MODNAME,
	.driver.dev_groups = stopwatch_groups,
};
module_isa_driver(isa_stopwatch, 1);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stopwatch on the ISA bus");
