// SPDX-License-Identifier: GPL-2.0
/*
 * A way into the module by a function in C. The kernel's compiler puts a place for ftrace at the beginning of each function in C and of none
 * in Rust, so that this is what a live patch can replace.
 */
#include <linux/blk-mq.h>
#include <linux/export.h>

blk_status_t single_queue_rq(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data);
blk_status_t single_traced(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data);

noinline blk_status_t single_traced(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data)
{
	return single_queue_rq(hctx, data);
}

EXPORT_SYMBOL_GPL(single_queue_rq);
