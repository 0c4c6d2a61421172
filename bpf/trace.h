// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What one run of the explaining program is told and tells. Of one build with the broker that loads it and pinned
// nowhere, so it is no part of the layout.
#pragma once

#include <linux/types.h>

enum { SB_TRACE_STEPS = 64 };

/* Outcome of a step: 0 where the service had no socket; of sockets that would not take the packet, why. */
enum {
	SB_TRACE_DELIVERED = 1,
	SB_TRACE_PROTOCOL = 1 << 1,
	SB_TRACE_FAMILY = 1 << 2,
	SB_TRACE_STATE = 1 << 3,
	SB_TRACE_OTHER = 1 << 4,
	SB_TRACE_REUSEPORT = 1 << 5, /* within the socket's SO_REUSEPORT group the kernel would choose */
	SB_TRACE_SHARE = 1 << 6,     /* chosen by the client's address and port */
	SB_TRACE_STAYED = 1 << 7,    /* the one that has served this flow before */
};

struct sb_trace {
	__u32 ifindex;	 /* in: where the packet comes in; a test run refuses the context's own field */
	__u32 no_client; /* in: rules with a source match nobody; there is no address that lies in none */
	__u32 steps;	 /* out: rules that matched; `step` has the first of them, and at its end the last */
	__u32 outcome;	 /* of the step at hand */
	struct {
		__u32 service;
		__u32 outcome;
	} step[SB_TRACE_STEPS];
};
