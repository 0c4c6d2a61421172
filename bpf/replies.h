/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where an entry stands in `replies`: the same for who notes a question and who sends the answer. */
#pragma once

#include "bpf/read_once.h"
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
 * Whose answers an entry is for, in words: the socket's cookie; the family, for a socket may be one for both, and of
 * the client the port and the first word of its address, which is all of IPv4; the rest of its address, in two.
 */
enum { SB_REPLY_WORDS4 = 2, SB_REPLY_WORDS6 = 4 };

SB_INLINE __u64 sb_reply_client(__u16 family, __u16 port, __u32 address)
{
	return (__u64)address << 32 | (__u32)family << 16 | port;
}

/* Neither 0 nor SB_REPLY_BUSY. */
SB_INLINE __u64 sb_reply_tag_of(const __u64 *words, __u32 count)
{
	__u32 zero = 0;
	const struct sb_header *head = bpf_map_lookup_elem(&header, &zero);

	return sb_siphash(head ? head->flow_secret : 0, words, count) | 2;
}

SB_INLINE __u32 sb_reply_line_of(__u64 tag)
{
	return (__u32)((tag >> 32) * SB_REPLY_LINES >> 32);
}

/*
 * When a question or an answer is: never 0. By the clock that stands still between two ticks of the kernel, for reading
 * the other one waits until all loads before it are done. An answer in the tick of a question is taken for one to it.
 */
SB_INLINE __u32 sb_reply_now(void)
{
	return (__u32)(bpf_ktime_get_coarse_ns() >> SB_REPLY_CLOCK) | 1;
}

/* 0 if they are the same, else 1. */
SB_INLINE __u32 sb_differ(__u64 one, __u64 other)
{
	__u64 differs = one ^ other, negative = -differs;

	barrier_var(negative); /* or clang makes a branch of it */
	return (__u32)((differs | negative) >> 63);
}

/* The tags of a set, each read once. */
SB_INLINE void sb_reply_tags(const struct sb_reply_line *line, __u64 *tags)
{
	SB_STATIC_ASSERT(SB_REPLY_WAYS == 4, "here and below");
	tags[0] = READ_ONCE(line->tag[0]);
	tags[1] = READ_ONCE(line->tag[1]);
	tags[2] = READ_ONCE(line->tag[2]);
	tags[3] = READ_ONCE(line->tag[3]);
}

/*
 * The first of them that is this one, for two processors that find none may each write one. SB_REPLY_WAYS: none.
 * Without a branch: nobody could predict it, and what follows does not wait for the line if nothing has to be taken
 * back.
 */
SB_INLINE __u32 sb_reply_way(const __u64 *tags, __u64 tag)
{
	__u32 first = sb_differ(tags[0], tag), second = first & sb_differ(tags[1], tag);
	__u32 third = second & sb_differ(tags[2], tag);

	return first + second + third + (third & sb_differ(tags[3], tag));
}
