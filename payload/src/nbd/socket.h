/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What socket.rs and poller.rs need of the kernel that the kernel crate does not bind. The build turns it into
 * socket_bindings.rs: the constants, and the functions that xtask/src/modules.rs lists. No structure is taken from
 * here, only where a member lies in one.
 */
#include <linux/fcntl.h>
#include <linux/in.h>
#include <linux/sched.h>
#include <linux/tcp.h>
#include <net/sock.h>

static const unsigned int ATOM_SK_ALLOCATION = offsetof(struct sock, sk_allocation);
static const unsigned int ATOM_SK_USE_TASK_FRAG = offsetof(struct sock, sk_use_task_frag);
static const unsigned int ATOM_SK_SHUTDOWN = offsetof(struct sock, sk_shutdown);
static const gfp_t ATOM_GFP_RESERVES = GFP_NOIO | __GFP_MEMALLOC;
static const unsigned int ATOM_NONBLOCK = O_NONBLOCK;
static const unsigned int ATOM_TCP = IPPROTO_TCP;
static const unsigned int ATOM_TASK_IDLE = TASK_IDLE;
static const unsigned int ATOM_TASK_RUNNING = TASK_RUNNING;
static const unsigned int ATOM_TASK_NORMAL = TASK_NORMAL;
static const long ATOM_NO_TIMEOUT = MAX_SCHEDULE_TIMEOUT;

static_assert(sizeof_field(struct sock, sk_allocation) == sizeof(gfp_t));
static_assert(sizeof_field(struct sock, sk_use_task_frag) == 1);
static_assert(sizeof_field(struct sock, sk_shutdown) == 1);
