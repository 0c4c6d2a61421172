/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that the dispatch program shares with the programs in cgroups of units (bpf/answer.bpf.c): pinned once, and
 * given to whoever is loaded later.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"

/* A map of the kinds whose keys are indices. */
#define SB_MAP(kind, flags, entries, value_type)                                                                       \
	struct {                                                                                                       \
		__uint(type, kind);                                                                                    \
		__uint(map_flags, flags);                                                                              \
		__uint(max_entries, entries);                                                                          \
		__type(key, __u32);                                                                                    \
		__type(value, value_type);                                                                             \
	}

/* An array that user space maps; and then its values begin where cache lines do. */
#define SB_MAPPED_ARRAY(entries, value_type) SB_MAP(BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, entries, value_type)

SB_MAPPED_ARRAY(1, struct sb_header) header SEC(".maps");

/* Which address a client has asked, for UdpReply=original. */
SB_MAPPED_ARRAY(SB_REPLY_LINES, struct sb_reply_line) replies SEC(".maps");
SB_MAPPED_ARRAY(SB_REPLY_LINES, struct sb_reply_times) answered SEC(".maps");

/* Of the cgroup of a unit. The dispatch program has it only so that it is there. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct sb_unit);
} units SEC(".maps");
