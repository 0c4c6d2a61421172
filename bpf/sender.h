// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Who sends a message, seen from within his send(2). Uids are free for whoever has subordinate ones (subuid(5)), so
 * what counts is the group: of a user's sessions and of his user manager the slice user-UID.slice, else the unit, as
 * sd_pid_get_unit(3) has it. No user can leave either, nor make another one.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/group.h"

enum {
	SB_MAX_CGROUP_DEPTH = 24, /* deeper there is no unit that counts */
	SB_MAX_CGROUP_NAME = 256,
	SB_NOBODYS_UID = 0xffffffff,
};

/* What is read of the kernel's own structures; where it stands there the loader finds out (CO-RE). */
struct kuid {
	__u32 val;
} __attribute__((preserve_access_index));

struct cred {
	struct kuid uid;
} __attribute__((preserve_access_index));

struct kernfs_node {
	const char *name;
	__u64 id;
} __attribute__((preserve_access_index));

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[]; /* of each level, itself included */
} __attribute__((preserve_access_index));

struct css_set {
	struct cgroup *dfl_cgrp; /* of the one hierarchy */
} __attribute__((preserve_access_index));

struct task_struct {
	const struct cred *cred;
	struct css_set *cgroups;
} __attribute__((preserve_access_index));

struct sk_buff {
	char cb[48];
} __attribute__((preserve_access_index));

struct unix_skb_parms { /* what cb is of a UNIX socket's message */
	struct kuid uid;
} __attribute__((preserve_access_index));

/* Who is root in a user namespace of his own may say that he is any other uid of it (SCM_CREDENTIALS). That is the one
 * that the broker sees. */
static __always_inline __u32 sb_claimed_uid(const void *skb, __u32 real)
{
	__u32 uid = SB_NOBODYS_UID;

	bpf_probe_read_kernel(&uid, sizeof uid,
			      skb + bpf_core_field_offset(struct sk_buff, cb) +
				      bpf_core_field_offset(struct unix_skb_parms, uid));
	return uid == SB_NOBODYS_UID ? real : uid;
}

static __always_inline int sb_begins_with(const char *text, const char *with, int size)
{
	for (int i = 0; i < size; i++)
		if (text[i] != with[i])
			return 0;
	return 1;
}

/* False: that is only on the way to units. `name`: of SB_MAX_CGROUP_NAME. */
static __always_inline int sb_is_group(const struct kernfs_node *node, char *name)
{
	const char *text = BPF_CORE_READ(node, name);
	const long size = bpf_probe_read_kernel_str(name, SB_MAX_CGROUP_NAME, text);
	char end[6] = {};

	if (size <= (long)sizeof ".slice" || size > SB_MAX_CGROUP_NAME)
		return 1;
	bpf_probe_read_kernel(end, sizeof end, text + size - sizeof ".slice");
	if (!sb_begins_with(end, ".slice", sizeof end))
		return 1;
	return sb_begins_with(name, "user-", 5) && name[5] >= '0' && name[5] <= '9';
}

/* False: it is in none. */
static __always_inline int sb_find_group(struct task_struct *sender, __u64 root, struct sb_group *group)
{
	const void *cgroup = BPF_CORE_READ(sender, cgroups, dfl_cgrp);
	const int level = BPF_CORE_READ((const struct cgroup *)cgroup, level);
	const struct kernfs_node *found = 0;
	char name[SB_MAX_CGROUP_NAME];

	for (int i = 1; i <= level && i < SB_MAX_CGROUP_DEPTH; i++) {
		const struct cgroup *ancestor = 0;
		const struct kernfs_node *node;

		bpf_probe_read_kernel(&ancestor, sizeof ancestor,
				      cgroup + bpf_core_field_offset(struct cgroup, ancestors) + i * sizeof ancestor);
		node = BPF_CORE_READ(ancestor, kn);
		if (BPF_CORE_READ(node, id) == root)
			found = 0;
		else if (!found && sb_is_group(node, name))
			found = node;
	}
	if (found)
		bpf_probe_read_kernel_str(group->name, sizeof group->name, BPF_CORE_READ(found, name));
	return found != 0;
}
