// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Driver of the vector unit. /sys/bus/pci/devices/.../compute takes "OPERATION ELEMENTS" and shows the result. */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>

enum { CONTROL = 0x04, STATUS = 0x08, ERROR_CODE = 0x0c, RING_BASE = 0x10, RING_SIZE = 0x18, TAIL = 0x20, DONE = 0x24 };
enum { CONTROL_ENABLE = 1 << 0, CONTROL_RESET = 1 << 1 };
enum { ADD, MULTIPLY, SUM, OPERATIONS };
enum { VECTOR_DONE, VECTOR_ERROR, VECTORS };
#define JOB_INTERRUPT (1 << 8)
#define JOBS 16
#define MAX_ELEMENTS 1024

struct job {
	__le64 a, b, result;
	__le32 elements, flags;
};

struct unit {
	void __iomem *registers;
	struct job *ring;
	dma_addr_t ring_at;
	__le32 *data; /* a, b and the result, one behind the other */
	dma_addr_t data_at;
	u32 tail;
	u32 result;
	bool failed;
	unsigned int interrupts[VECTORS];
	struct completion completion;
	struct mutex lock;
};

static irqreturn_t done(int irq, void *data)
{
	struct unit *unit = data;

	unit->interrupts[VECTOR_DONE]++;
	complete(&unit->completion);
	return IRQ_HANDLED;
}

static irqreturn_t failed(int irq, void *data)
{
	struct unit *unit = data;

	unit->interrupts[VECTOR_ERROR]++;
	unit->failed = true;
	complete(&unit->completion);
	return IRQ_HANDLED;
}

static void start(struct unit *unit)
{
	iowrite32(CONTROL_RESET, unit->registers + CONTROL);
	iowrite32(lower_32_bits(unit->ring_at), unit->registers + RING_BASE);
	iowrite32(upper_32_bits(unit->ring_at), unit->registers + RING_BASE + 4);
	iowrite32(JOBS, unit->registers + RING_SIZE);
	iowrite32(CONTROL_ENABLE, unit->registers + CONTROL);
	unit->tail = 0;
	unit->failed = false;
}

static ssize_t compute_store(struct device *device, struct device_attribute *attribute, const char *text, size_t count)
{
	struct unit *unit = dev_get_drvdata(device);
	unsigned int operation, elements, i;
	struct job *job;

	if (sscanf(text, "%u %u", &operation, &elements) != 2 || elements > MAX_ELEMENTS)
		return -EINVAL;
	mutex_lock(&unit->lock);
	for (i = 0; i < elements; i++) {
		unit->data[i] = cpu_to_le32(i + 1);
		unit->data[MAX_ELEMENTS + i] = cpu_to_le32(3);
	}
	job = &unit->ring[unit->tail];
	job->a = cpu_to_le64(unit->data_at);
	job->b = cpu_to_le64(unit->data_at + MAX_ELEMENTS * 4);
	job->result = cpu_to_le64(unit->data_at + MAX_ELEMENTS * 8);
	job->elements = cpu_to_le32(elements);
	job->flags = cpu_to_le32(operation | JOB_INTERRUPT);
	unit->tail = (unit->tail + 1) % JOBS;
	reinit_completion(&unit->completion);
	dma_wmb();
	iowrite32(unit->tail, unit->registers + TAIL);
	if (!wait_for_completion_timeout(&unit->completion, HZ))
		unit->failed = true;
	if (unit->failed) {
		dev_warn(device, "job refused, error %u\n", ioread32(unit->registers + ERROR_CODE));
		start(unit);
		mutex_unlock(&unit->lock);
		return -EIO;
	}
	unit->result = le32_to_cpu(unit->data[2 * MAX_ELEMENTS + (operation == SUM ? 0 : elements - 1)]);
	mutex_unlock(&unit->lock);
	return count;
}

static ssize_t compute_show(struct device *device, struct device_attribute *attribute, char *text)
{
	struct unit *unit = dev_get_drvdata(device);

	return sysfs_emit(text, "%u\n", unit->result);
}
static DEVICE_ATTR_RW(compute);

static ssize_t interrupts_show(struct device *device, struct device_attribute *attribute, char *text)
{
	struct unit *unit = dev_get_drvdata(device);

	return sysfs_emit(text, "%u %u\n", unit->interrupts[VECTOR_DONE], unit->interrupts[VECTOR_ERROR]);
}
static DEVICE_ATTR_RO(interrupts);

static struct attribute *unit_attrs[] = { &dev_attr_compute.attr, &dev_attr_interrupts.attr, NULL };
ATTRIBUTE_GROUPS(unit);

static int probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	struct device *device = &pci->dev;
	struct unit *unit = devm_kzalloc(device, sizeof(*unit), GFP_KERNEL);
	int error;

	if (!unit)
		return -ENOMEM;
	error = pcim_enable_device(pci);
	if (error)
		return error;
	error = pcim_iomap_regions(pci, BIT(0), KBUILD_MODNAME);
	if (error)
		return error;
	unit->registers = pcim_iomap_table(pci)[0];
	pci_set_master(pci);
	error = dma_set_mask_and_coherent(device, DMA_BIT_MASK(64));
	if (error)
		return error;
	unit->ring = dmam_alloc_coherent(device, JOBS * sizeof(struct job), &unit->ring_at, GFP_KERNEL);
	unit->data = dmam_alloc_coherent(device, 3 * MAX_ELEMENTS * 4, &unit->data_at, GFP_KERNEL);
	if (!unit->ring || !unit->data)
		return -ENOMEM;
	init_completion(&unit->completion);
	mutex_init(&unit->lock);
	error = pci_alloc_irq_vectors(pci, VECTORS, VECTORS, PCI_IRQ_MSIX);
	if (error < 0)
		return error;
	error = devm_request_irq(device, pci_irq_vector(pci, VECTOR_DONE), done, 0, "vector-unit done", unit);
	if (!error)
		error = devm_request_irq(device, pci_irq_vector(pci, VECTOR_ERROR), failed, 0, "vector-unit error", unit);
	if (error)
		return error;
	pci_set_drvdata(pci, unit);
	start(unit);
	return 0;
}

static void leave(struct pci_dev *pci)
{
	struct unit *unit = pci_get_drvdata(pci);

	iowrite32(CONTROL_RESET, unit->registers + CONTROL);
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1b36, 0x70f0) }, { } };
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver vector_unit = {
	.name = KBUILD_MODNAME,
	.id_table = ids,
	.probe = probe,
	.remove = leave,
	.dev_groups = unit_groups,
};
module_pci_driver(vector_unit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Vector unit");
