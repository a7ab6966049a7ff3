// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Driver of the checksum device. /sys/bus/virtio/devices/.../crc takes a message and shows its CRC-32. */
#include <linux/completion.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#define VIRTIO_ID_CRC 63
#define CONFIG_MESSAGES 4

struct crc {
	struct virtqueue *queue;
	struct completion completion;
	struct mutex lock;
	__le32 *result; /* memory of its own, as the device writes it */
};

static void answered(struct virtqueue *queue)
{
	struct crc *crc = queue->vdev->priv;
	unsigned int length;

	while (virtqueue_get_buf(queue, &length))
		complete(&crc->completion);
}

static ssize_t crc_store(struct device *device, struct device_attribute *attribute, const char *text, size_t count)
{
	struct crc *crc = dev_to_virtio(device)->priv;
	struct scatterlist message, result, *lists[] = { &message, &result };
	char *copy = kmemdup(text, count, GFP_KERNEL);
	int error;

	if (!copy)
		return -ENOMEM;
	mutex_lock(&crc->lock);
	sg_init_one(&message, copy, count);
	sg_init_one(&result, crc->result, sizeof(*crc->result));
	reinit_completion(&crc->completion);
	error = virtqueue_add_sgs(crc->queue, lists, 1, 1, copy, GFP_KERNEL);
	if (!error) {
		virtqueue_kick(crc->queue);
		wait_for_completion(&crc->completion);
	}
	mutex_unlock(&crc->lock);
	kfree(copy);
	return error ? error : count;
}

static ssize_t crc_show(struct device *device, struct device_attribute *attribute, char *text)
{
	struct crc *crc = dev_to_virtio(device)->priv;

	return sysfs_emit(text, "%08x\n", le32_to_cpu(*crc->result));
}
static DEVICE_ATTR_RW(crc);

static ssize_t messages_show(struct device *device, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", virtio_cread32(dev_to_virtio(device), CONFIG_MESSAGES));
}
static DEVICE_ATTR_RO(messages);

static struct attribute *crc_attrs[] = { &dev_attr_crc.attr, &dev_attr_messages.attr, NULL };
ATTRIBUTE_GROUPS(crc);

static int probe(struct virtio_device *device)
{
	struct crc *crc = devm_kzalloc(&device->dev, sizeof(*crc), GFP_KERNEL);

	if (!crc)
		return -ENOMEM;
	crc->result = devm_kzalloc(&device->dev, sizeof(*crc->result), GFP_KERNEL);
	if (!crc->result)
		return -ENOMEM;
	init_completion(&crc->completion);
	mutex_init(&crc->lock);
	device->priv = crc;
	crc->queue = virtio_find_single_vq(device, answered, "messages");
	if (IS_ERR(crc->queue))
		return PTR_ERR(crc->queue);
	virtio_device_ready(device);
	return 0;
}

static void leave(struct virtio_device *device)
{
	virtio_reset_device(device);
	device->config->del_vqs(device);
}

static const struct virtio_device_id ids[] = { { VIRTIO_ID_CRC, VIRTIO_DEV_ANY_ID }, { } };
MODULE_DEVICE_TABLE(virtio, ids);

static struct virtio_driver virtio_crc = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.driver.dev_groups = crc_groups,
	.id_table = ids,
	.probe = probe,
	.remove = leave,
};
module_virtio_driver(virtio_crc);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Checksum device");
