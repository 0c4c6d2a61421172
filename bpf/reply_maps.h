/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The two maps of UdpReply=original, which the dispatch program (bpf/replies.inc) and the programs in cgroups of units
 * (bpf/answer.bpf.c) share: pinned once, and given to whoever is loaded later.
 */
#pragma once

#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"

/* Which address a client has asked. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SB_REPLIES);
	__type(key, struct sb_client);
	__type(value, struct sb_asked);
} replies SEC(".maps");

/* Of the cgroup of a unit. The dispatch program has it only so that it is there. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct sb_unit);
} units SEC(".maps");
