/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that the dispatch program shares with the programs in cgroups of units (bpf/answer.bpf.c): pinned once, and
 * given to whoever is loaded later.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_header);
} header SEC(".maps");

/* Which address a client has asked, for UdpReply=original. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* so that values begin where cache lines do */
	__uint(max_entries, SB_REPLY_LINES);
	__type(key, __u32);
	__type(value, struct sb_reply_line);
} replies SEC(".maps");

/* Of the cgroup of a unit. The dispatch program has it only so that it is there. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct sb_unit);
} units SEC(".maps");
