// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust cannot say in an out-of-tree module: which symbols are exported to payloads, and that the
 * numbers in the abi crate are those of this kernel's headers. There is no code here.
 *
 * The functions are defined in sys/exports.rs and declared, with their contract, in abi/src/calls.rs.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/export.h>

struct xarray;

int atom_payload_register(const void *table);
int atom_payload_unregister(int id);
int atom_device_create(const void *spec, u64 cookie, u32 *id);
int atom_device_destroy(u32 id);
int atom_device_bind(u32 id, u64 cookie);
int atom_device_change(u32 id, const void *spec);
int atom_checkpoint(int id, const u8 *image, u64 bytes);
int atom_object_preserve(u64 key, u32 kind, void *object);
int atom_object_claim(u64 key, u32 kind, void **object);
int atom_object_release(u64 key, u32 kind);
int atom_request_end(void *request, u64 epoch, u32 status);
int atom_pages_create(u64 key, struct xarray **store);
int atom_pages_claim(u64 key, struct xarray **store);
int atom_pages_release(u64 key);
int atom_page_free(struct page *page);
void atom_bio_end(struct bio *bio);
int atom_event(int id, u32 device, const void *text);

EXPORT_SYMBOL_GPL(atom_payload_register);
EXPORT_SYMBOL_GPL(atom_payload_unregister);
EXPORT_SYMBOL_GPL(atom_device_create);
EXPORT_SYMBOL_GPL(atom_device_destroy);
EXPORT_SYMBOL_GPL(atom_device_bind);
EXPORT_SYMBOL_GPL(atom_device_change);
EXPORT_SYMBOL_GPL(atom_checkpoint);
EXPORT_SYMBOL_GPL(atom_object_preserve);
EXPORT_SYMBOL_GPL(atom_object_claim);
EXPORT_SYMBOL_GPL(atom_object_release);
EXPORT_SYMBOL_GPL(atom_request_end);
EXPORT_SYMBOL_GPL(atom_pages_create);
EXPORT_SYMBOL_GPL(atom_pages_claim);
EXPORT_SYMBOL_GPL(atom_pages_release);
EXPORT_SYMBOL_GPL(atom_page_free);
EXPORT_SYMBOL_GPL(atom_bio_end);
EXPORT_SYMBOL_GPL(atom_event);

/* abi/src/request.rs: op and status */
static_assert(REQ_OP_READ == 0);
static_assert(REQ_OP_WRITE == 1);
static_assert(REQ_OP_FLUSH == 2);
static_assert(REQ_OP_DISCARD == 3);
static_assert(REQ_OP_WRITE_ZEROES == 9);
static_assert((__force u8)BLK_STS_OK == 0);
static_assert((__force u8)BLK_STS_NOTSUPP == 1);
static_assert((__force u8)BLK_STS_TIMEOUT == 2);
static_assert((__force u8)BLK_STS_NOSPC == 3);
static_assert((__force u8)BLK_STS_TRANSPORT == 4);
static_assert((__force u8)BLK_STS_MEDIUM == 7);
static_assert((__force u8)BLK_STS_RESOURCE == 9);
static_assert((__force u8)BLK_STS_IOERR == 10);

/* abi/src/device.rs: feature */
static_assert((__force u32)BLK_FEAT_WRITE_CACHE == 1u << 0);
static_assert((__force u32)BLK_FEAT_FUA == 1u << 1);
static_assert((__force u32)BLK_FEAT_ROTATIONAL == 1u << 2);
