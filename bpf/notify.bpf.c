// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The filter of the notify socket. The kernel runs it in send(2), as the sender, before a message stands in the queue
 * that all senders share: what it drops is closed by whoever has sent it, and costs the broker nothing.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* What is read of the kernel's own structures; where it stands there the loader finds out (CO-RE). */
struct kuid {
	__u32 val;
} __attribute__((preserve_access_index));

struct cred {
	struct kuid uid;
} __attribute__((preserve_access_index));

struct task_struct {
	const struct cred *cred;
} __attribute__((preserve_access_index));

/* Real uids, as the initial user namespace has them, and how many messages of each were dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} unheard SEC(".maps");

SEC("socket")
int notify(struct __sk_buff *skb)
{
	struct task_struct *sender = (struct task_struct *)bpf_get_current_task();
	__u32 uid = BPF_CORE_READ(sender, cred, uid.val);
	__u64 *dropped = bpf_map_lookup_elem(&unheard, &uid);

	if (!dropped)
		return skb->len ? skb->len : 1; /* whole; 0 drops it, an empty message too */
	__sync_fetch_and_add(dropped, 1);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
