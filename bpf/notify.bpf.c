// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The filter of the notify socket. The kernel runs it in send(2), as the sender, before a message stands in the queue
 * that all senders share: what it drops is closed by whoever has sent it, and costs the broker nothing. Here the sender
 * is there still, so here it is seen to which group he belongs (sender.h); the broker asks for that when it has the
 * message.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/sender.h"

/* Uids, as the initial user namespace has them, and how many messages of each were dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} unheard SEC(".maps");

/* The same of groups. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct sb_group);
	__type(value, __u64);
} unheard_groups SEC(".maps");

/* In which group somebody with such a uid was when he last sent something. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32); /* sb_uids_of() */
	__type(value, struct sb_group);
} groups SEC(".maps");

/* The cgroup that is the root to the broker, in a container say: of who is below it the groups are too. */
volatile const __u64 root_cgroup = 0;

static __always_inline int is_unheard(void *map, const void *key)
{
	__u64 *dropped = bpf_map_lookup_elem(map, key);

	if (dropped)
		__sync_fetch_and_add(dropped, 1);
	return dropped != 0;
}

SEC("socket")
int notify(struct __sk_buff *skb)
{
	struct task_struct *sender = (struct task_struct *)bpf_get_current_task();
	const int whole = skb->len ? skb->len : 1; /* 0 drops it, an empty message too */
	struct sb_group group = {};
	__u32 uid = BPF_CORE_READ(sender, cred, uid.val);

	if (uid == 0)
		return whole;
	uid = sb_claimed_uid(skb, uid);
	if (is_unheard(&unheard, &uid))
		return 0;
	if (!sb_find_group(sender, root_cgroup, &group))
		return whole;
	if (is_unheard(&unheard_groups, &group))
		return 0;
	uid = sb_uids_of(uid);
	bpf_map_update_elem(&groups, &uid, &group, BPF_ANY);
	return whole;
}

char _license[] SEC("license") = "Dual BSD/GPL";
