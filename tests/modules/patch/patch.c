// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch of the one module: its function in C is replaced by one that does the same. What a patch costs is measured with it; a real one
 * would differ in a line.
 */
#include <linux/blk-mq.h>
#include <linux/livepatch.h>
#include <linux/module.h>

blk_status_t single_queue_rq(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data);

static blk_status_t patched(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data)
{
	return single_queue_rq(hctx, data);
}

static struct klp_func functions[] = {
	{ .old_name = "single_traced", .new_func = patched },
	{ }
};

static struct klp_object objects[] = {
	{ .name = "single", .funcs = functions },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_DESCRIPTION("A live patch of the client in one module, for the benchmark");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
