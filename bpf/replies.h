/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where an entry stands in `replies`: the same for who notes a question and who sends the answer. */
#pragma once

#include "bpf/shared_maps.h"
#include "bpf/siphash.h"

/* Of two that are below 2^63. Without a branch, which the verifier would follow both ways in each round of a loop. */
SB_INLINE __u64 sb_larger(__u64 one, __u64 other)
{
	__u64 more = other - one, less = more >> 63;

	barrier_var(less); /* or clang makes a branch of it */
	return one + more * (less ^ 1);
}

/*
 * Of the socket's cookie, the family of the addresses (a socket may be one for both), and the client's port and the
 * first word of its address, which is all of IPv4. sb_reply_rest() adds the others.
 */
SB_INLINE void sb_reply_begin(struct sb_sip *state, __u64 cookie, __u16 family, __u16 port, __u32 address)
{
	__u32 zero = 0;
	const struct sb_header *head = bpf_map_lookup_elem(&header, &zero);

	sb_sip_begin(state, head ? head->flow_secret[0] : 0, head ? head->flow_secret[1] : 0);
	sb_sip_word(state, cookie);
	sb_sip_word(state, (__u64)address << 32 | (__u32)family << 16 | port);
}

SB_INLINE void sb_reply_rest(struct sb_sip *state, __u32 second, __u32 third, __u32 fourth)
{
	sb_sip_word(state, sb_half(second, third));
	sb_sip_word(state, fourth);
}

/* Neither 0 nor SB_REPLY_BUSY. */
SB_INLINE __u64 sb_reply_end(struct sb_sip *state)
{
	return sb_sip_end(state) | 2;
}

SB_INLINE __u32 sb_reply_line_of(__u64 tag)
{
	return (__u32)((tag >> 32) * SB_REPLY_LINES >> 32);
}
