// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the filter of the notify socket tells the broker of a sender. Both are of one build, so it is no part of the
 * layout. */
#pragma once

#include <linux/types.h>

/* Of the cgroup: where that is made anew, at the next log-in say, it is the same group. The rest of it is zero; of
 * longer ones, which only containers have, that is enough. */
struct sb_group {
	char name[128];
};

/* Subordinate uids are given out so, from there on. */
enum {
	SB_FIRST_SUBORDINATE_UID = 100000,
	SB_UIDS_OF_ONE = 65536,
};

/* A key for a uid, alike for all that one user has: of so many that he may change among he cannot make the kernel
 * forget any. Others that share a key are told apart by nothing but time, so it is only asked of what has just come. */
static inline __u32 sb_uids_of(__u32 uid)
{
	return uid < SB_FIRST_SUBORDINATE_UID
		       ? uid
		       : SB_FIRST_SUBORDINATE_UID + (uid - SB_FIRST_SUBORDINATE_UID) / SB_UIDS_OF_ONE;
}
