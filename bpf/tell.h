// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The explaining program's words where the attached one counts: it writes what happens into the trace, which the broker
 * has mapped. One test run at a time: the broker's loop makes them.
 */
#pragma once

#include <linux/bpf.h>

#include "bpf/find.h"
#include "bpf/trace.h"

struct sb_trace trace;

/* The step ends: its service, and what was told of it. Where there is no room the newest replaces the one before. */
static __always_inline void sb_tell_step(__u32 service)
{
	__u32 step = trace.steps++;

	if (step >= SB_TRACE_STEPS)
		step = SB_TRACE_STEPS - 1;
	barrier_var(step); /* the verifier wants the check and the use in one register */
	if (step < SB_TRACE_STEPS) {
		trace.step[step].service = service;
		trace.step[step].outcome = trace.outcome;
	}
	trace.outcome = 0;
}

/* The kernel tells no cookie of a test run that leaves the choice within a SO_REUSEPORT group to it. */
static __always_inline __u64 sb_told_flags(__u64 flags)
{
	if (!(flags & BPF_SK_LOOKUP_F_NO_REUSEPORT))
		trace.outcome |= SB_TRACE_REUSEPORT;
	return flags | BPF_SK_LOOKUP_F_NO_REUSEPORT;
}

#define SB_COUNT(what) ((void)(what))
#define SB_TELL(what) (trace.outcome |= (what))
#define SB_TELL_STEP(service) sb_tell_step(service)
#define SB_ASSIGN_FLAGS(flags) sb_told_flags(flags)
#define SB_INGRESS(ctx) (trace.ifindex)
#define SB_NO_CLIENT(ctx) (trace.no_client)
