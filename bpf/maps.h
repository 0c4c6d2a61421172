/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of the dispatch program. bpf/layout.h says what stands in them, docs/dispatch.md who writes which. Sizes of
 * 1 are set by the broker before it loads.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"
#include "bpf/shared_maps.h"

SB_MAPPED_ARRAY(1, union sb_line) arena SEC(".maps");
SB_MAPPED_ARRAY(8, struct sb_table) tables SEC(".maps");
SB_MAPPED_ARRAY(1, struct sb_service) services SEC(".maps");
SB_MAPPED_ARRAY(1, union sb_record) records SEC(".maps");
SB_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, 0, 1, struct sb_counters) counters SEC(".maps");
SB_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, 0, 1, struct sb_binding_counter) binding_counters SEC(".maps");

/* Values of eight bytes: user space then reads cookies from it. */
SB_MAP(BPF_MAP_TYPE_SOCKMAP, 0, 1, __u64) sockets SEC(".maps");
SB_MAPPED_ARRAY(1, struct sb_slot) slots SEC(".maps");
SB_MAPPED_ARRAY(SB_FLOW_LINES, struct sb_flow_line) flows SEC(".maps");
SB_MAPPED_ARRAY(SB_REPLY_LINES, struct sb_reply_times) questions SEC(".maps");

/* For the broker, but for the cookie. */
SB_MAP(BPF_MAP_TYPE_ARRAY, 0, 1, struct sb_registrant) registrants SEC(".maps");

/* The last two are for the broker alone. */

SB_MAP(BPF_MAP_TYPE_ARRAY, 0, 1, struct sb_name) names SEC(".maps");

/* Which binding each of binding_counters is of, by a hash of all that makes it what it is. 0: of none. */
SB_MAP(BPF_MAP_TYPE_ARRAY, 0, 1, __u64) counted SEC(".maps");
