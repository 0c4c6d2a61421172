/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * UdpFlows=stay: which socket of its service has served a flow before. A table of sets, one cache line each, that keeps
 * no key: a tag that collides only leads to another socket of the same service. Included by dispatch.bpf.c, which has
 * the maps. Nothing here is called for a service that does not ask for it.
 *
 * The second datagram of a flow protects its entry. A protected one gives way only when it was silent for SB_FLOW_KEEP;
 * of the others the oldest does. So a flood of spoofed sources, which hears no answer and comes once each, displaces
 * nobody who speaks; where all eight of a set are protected a newcomer has no place, and goes to the newest.
 */
#pragma once

#define SB_FLOW_NOW() ((__u32)(bpf_ktime_get_coarse_ns() >> SB_FLOW_CLOCK) & SB_FLOW_TIMES)

#ifdef SB_EXPLAIN
#define SB_FLOW_STORE(place, value) ((void)(place), (void)(value))
#else
#define SB_FLOW_STORE(place, value) (*(volatile __u64 *)&(place) = (value))
#endif

#define SB_ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define SB_SIP_ROUND(a, b, c, d)                                                                                       \
	do {                                                                                                           \
		a += b;                                                                                                \
		b = SB_ROTATE(b, 13) ^ a;                                                                              \
		a = SB_ROTATE(a, 32);                                                                                  \
		c += d;                                                                                                \
		d = SB_ROTATE(d, 16) ^ c;                                                                              \
		a += d;                                                                                                \
		d = SB_ROTATE(d, 21) ^ a;                                                                              \
		c += b;                                                                                                \
		b = SB_ROTATE(b, 17) ^ c;                                                                              \
		c = SB_ROTATE(c, 32);                                                                                  \
	} while (0)
#define SB_SIP_WORD(word)                                                                                              \
	do {                                                                                                           \
		__u64 m = (word);                                                                                      \
		d ^= m;                                                                                                \
		SB_SIP_ROUND(a, b, c, d);                                                                              \
		a ^= m;                                                                                                \
	} while (0)

/* SipHash-1-3 of service, addresses and ports. The secrets are nobody's, so nobody can choose who shares a set. */
SB_GLOBAL __u64 sb_flow_hash(struct bpf_sk_lookup *ctx, __u32 service)
{
	__u32 zero = 0;
	const struct sb_header *head = bpf_map_lookup_elem(&header, &zero);
	__u64 key = head ? head->flow_secret[0] : 0, other = head ? head->flow_secret[1] : 0;
	__u64 a = key ^ 0x736f6d6570736575ULL, b = other ^ 0x646f72616e646f6dULL;
	__u64 c = key ^ 0x6c7967656e657261ULL, d = other ^ 0x7465646279746573ULL;
	__u64 ports = ctx->remote_port;

	ports |= (__u64)ctx->local_port << 16 | (__u64)service << 32 | (__u64)ctx->family << 56;
	SB_SIP_WORD(ports);
	if (ctx->family == SB_AF_INET) {
		SB_SIP_WORD(sb_half(ctx->remote_ip4, ctx->local_ip4));
	} else {
		SB_SIP_WORD(sb_half(ctx->remote_ip6[0], ctx->remote_ip6[1]));
		SB_SIP_WORD(sb_half(ctx->remote_ip6[2], ctx->remote_ip6[3]));
		SB_SIP_WORD(sb_half(ctx->local_ip6[0], ctx->local_ip6[1]));
		SB_SIP_WORD(sb_half(ctx->local_ip6[2], ctx->local_ip6[3]));
	}
	c ^= 0xff;
	SB_SIP_ROUND(a, b, c, d);
	SB_SIP_ROUND(a, b, c, d);
	SB_SIP_ROUND(a, b, c, d);
	return a ^ b ^ c ^ d;
}

SB_INLINE __u32 sb_flow_line_of(__u64 hash)
{
	return (__u32)hash % SB_FLOW_LINES;
}

/* Never 0, which is what an empty entry has. */
SB_INLINE __u64 sb_flow_tag(__u64 hash)
{
	__u64 tag = hash >> SB_FLOW_TAG_SHIFT;

	return tag ? tag : 1;
}

SB_INLINE __u32 sb_flow_age(__u64 entry, __u32 now)
{
	return (now - (__u32)(entry >> SB_FLOW_TIME_SHIFT)) & SB_FLOW_TIMES;
}

/* Where the flow stands in its set. SB_FLOW_WAYS: nowhere. */
SB_GLOBAL __u32 sb_flow_way(__u64 hash)
{
	__u32 at = sb_flow_line_of(hash);
	const struct sb_flow_line *line = bpf_map_lookup_elem(&flows, &at);

	if (!line)
		return SB_FLOW_WAYS;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_FLOW_WAYS; i++) {
		if (READ_ONCE(line->entry[i]) >> SB_FLOW_TAG_SHIFT == sb_flow_tag(hash))
			return i;
	}
	return SB_FLOW_WAYS;
}

/*
 * How readily an entry gives way: an empty one first, then what was silent for long, then the oldest of those that are
 * not protected. 0: not at all. Arithmetic, for the verifier would follow branches through all rounds of the loop
 * below.
 */
SB_INLINE __u64 sb_flow_weight(__u64 entry, __u32 now)
{
	__u64 age = sb_flow_age(entry, now);
	__u64 silent = (SB_FLOW_KEEP - age) >> 63, unprotected = (entry >> SB_FLOW_PROTECTED_SHIFT & 1) ^ 1;
	__u64 empty = (entry - 1) >> 63 & ~entry >> 63; /* entry == 0 */

	barrier_var(silent);
	barrier_var(empty);
	return (age + 1) * unprotected + (age + SB_FLOW_TIMES) * silent + (empty << 32);
}

/* Which entry of the set gives way to a new flow. SB_FLOW_WAYS: none. */
SB_GLOBAL __u32 sb_flow_victim(__u64 hash, __u32 now)
{
	__u32 at = sb_flow_line_of(hash);
	const struct sb_flow_line *line = bpf_map_lookup_elem(&flows, &at);
	__u64 best = 0;

	if (!line)
		return SB_FLOW_WAYS;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_FLOW_WAYS; i++) {
		__u64 weight = sb_flow_weight(READ_ONCE(line->entry[i]), now) << 3 | i;

		if (weight > best)
			best = weight;
	}
	return best < SB_FLOW_WAYS ? SB_FLOW_WAYS : best % SB_FLOW_WAYS;
}

/*
 * Tries the socket that has served the flow. The slot is compared after the socket was taken: one that was given to
 * another service, or to another socket of this one, has another generation by then. 1: it took the packet.
 */
SB_GLOBAL int sb_try_flow(struct bpf_sk_lookup *ctx, __u64 hash, __u32 service)
{
	__u32 at = sb_flow_line_of(hash), way = sb_flow_way(hash), now = SB_FLOW_NOW(), slot, age;
	struct sb_flow_line *line = bpf_map_lookup_elem(&flows, &at);
	const struct sb_slot *owner;
	struct bpf_sock *sk;
	__u64 entry;
	long error = -ENOENT;

	barrier_var(way); /* the verifier wants the check and the use in one register */
	if (!line || way >= SB_FLOW_WAYS)
		return 0;
	entry = READ_ONCE(line->entry[way]);
	slot = entry & SB_FLOW_SLOT;
	age = sb_flow_age(entry, now);
	if (age > SB_FLOW_IDLE)
		return 0;
	sk = bpf_map_lookup_elem(&sockets, &slot);
	if (!sk)
		return 0;
	owner = bpf_map_lookup_elem(&slots, &slot);
	if (owner && READ_ONCE(owner->service) == service &&
	    ((READ_ONCE(owner->generation) ^ (__u32)(entry >> SB_FLOW_GENERATION_SHIFT)) & SB_FLOW_GENERATIONS) == 0)
		error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	if (error)
		return 0;
	/* Not with each packet: two processors that share a flow would pass the line to and fro. */
	if (!(entry & SB_FLOW_PROTECTED) || age >= SB_FLOW_REFRESH) {
		entry &= ~((__u64)SB_FLOW_TIMES << SB_FLOW_TIME_SHIFT);
		entry |= (__u64)now << SB_FLOW_TIME_SHIFT | SB_FLOW_PROTECTED;
		SB_FLOW_STORE(line->entry[way], entry);
	}
	SB_TELL(SB_TRACE_STAYED);
	return 1;
}

/* Remembers who serves the flow. One that had another socket before stays as protected as it was. */
SB_GLOBAL int sb_note_flow(__u64 hash, __u32 slot)
{
	__u32 at = sb_flow_line_of(hash), way = sb_flow_way(hash), now = SB_FLOW_NOW();
	struct sb_flow_line *line = bpf_map_lookup_elem(&flows, &at);
	const struct sb_slot *owner = bpf_map_lookup_elem(&slots, &slot);
	__u64 entry = sb_flow_tag(hash) << SB_FLOW_TAG_SHIFT;

	if (!line || !owner || slot > SB_FLOW_SLOT)
		return 0;
	entry |= slot | (__u64)(READ_ONCE(owner->generation) & SB_FLOW_GENERATIONS) << SB_FLOW_GENERATION_SHIFT;
	entry |= (__u64)now << SB_FLOW_TIME_SHIFT;
	if (way >= SB_FLOW_WAYS) {
		way = sb_flow_victim(hash, now);
		barrier_var(way);
		if (way >= SB_FLOW_WAYS)
			return 0;
	} else {
		barrier_var(way);
		if (way >= SB_FLOW_WAYS)
			return 0;
		entry |= READ_ONCE(line->entry[way]) & SB_FLOW_PROTECTED;
	}
	SB_FLOW_STORE(line->entry[way], entry);
	return 1;
}
