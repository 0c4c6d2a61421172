/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SipHash-1-3 of whole words (https://www.aumasson.jp/siphash/siphash.pdf): nobody who does not know the secret can
 * choose two inputs that meet. The rounds are loops and not written out: a processor that comes back from elsewhere
 * fetches a few lines of code instead of twenty.
 */
#pragma once

#include "bpf/layout.h"

struct sb_sip {
	__u64 a, b, c, d;
};

#define SB_ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

SB_INLINE void sb_sip_round(struct sb_sip *state)
{
	state->a += state->b;
	state->b = SB_ROTATE(state->b, 13) ^ state->a;
	state->a = SB_ROTATE(state->a, 32);
	state->c += state->d;
	state->d = SB_ROTATE(state->d, 16) ^ state->c;
	state->a += state->d;
	state->d = SB_ROTATE(state->d, 21) ^ state->a;
	state->c += state->b;
	state->b = SB_ROTATE(state->b, 17) ^ state->c;
	state->c = SB_ROTATE(state->c, 32);
}

SB_INLINE __u64 sb_siphash(const __u64 *secret, const __u64 *words, __u32 count)
{
	__u64 key = secret ? secret[0] : 0, other = secret ? secret[1] : 0;
	struct sb_sip state = {
		.a = key ^ 0x736f6d6570736575ULL,
		.b = other ^ 0x646f72616e646f6dULL,
		.c = key ^ 0x6c7967656e657261ULL,
		.d = other ^ 0x7465646279746573ULL,
	};

	SB_NO_UNROLL
	for (__u32 i = 0; i < count; i++) {
		state.d ^= words[i];
		sb_sip_round(&state);
		state.a ^= words[i];
	}
	state.c ^= 0xff;
	SB_NO_UNROLL
	for (__u32 i = 0; i < 3; i++)
		sb_sip_round(&state);
	return state.a ^ state.b ^ state.c ^ state.d;
}
