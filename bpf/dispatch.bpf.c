// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The dispatch program: which socket takes a new connection or an unconnected datagram. Its maps are in
 * bpf/maps.h, the walk through the rules is bpf/walk.h, the choice of a socket bpf/sockets.inc. Runs on 6.1, so it uses
 * nothing newer. It must release every socket that it looks up, and must read the generation, and a service's record,
 * in one load each: these are the only switches.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"
#include "bpf/maps.h"
#include "bpf/read_once.h"
#include "bpf/replies.h"
#include "bpf/siphash.h"

/*
 * This file is compiled twice: as the program that is attached, and by explain.bpf.c as the one that tells what this
 * one would do. They differ in these words alone.
 */
#ifdef SB_EXPLAIN
#include "bpf/tell.h"
#else
#define SB_COUNT(what) ((what)++)
#define SB_TELL(outcome) ((void)0)
#define SB_TELL_STEP(service) ((void)0)
#define SB_ASSIGN_FLAGS(flags) (flags)
#endif

#include "bpf/walk.h"

#include "bpf/flows.inc"
#ifndef SB_EXPLAIN
#include "bpf/replies.inc"
#endif

SB_INLINE const union sb_line *sb_line_at(__u32 index)
{
	return bpf_map_lookup_elem(&arena, &index);
}

SB_INLINE const struct sb_table *sb_table_at(__u32 index)
{
	return bpf_map_lookup_elem(&tables, &index);
}

#include "bpf/sockets.inc"

static __always_inline void count_assigned(struct sb_counters *counter, __u32 service)
{
	(void)service;
	SB_COUNT(counter->assigned);
	SB_TELL(SB_TRACE_DELIVERED);
	SB_TELL_STEP(service);
}

/* Gives the packet to the socket in the slot; nothing is counted. None is ever in slot 0. */
static __always_inline int assign(struct bpf_sk_lookup *ctx, __u32 slot)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &slot);
	long error;

	if (!sk)
		return 0;
	error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	return !error;
}

#ifdef SB_EXPLAIN
#define sb_remember(ctx, slot, service, what) ((void)(slot))
#else
/* The packet went to the socket in this slot. */
SB_INLINE void sb_remember(struct bpf_sk_lookup *ctx, __u32 slot, __u32 service, __u32 what)
{
	if (what & SB_SLOT_STAY)
		sb_note_flow(sb_flow_hash(ctx, service), slot, sb_flow_generation(slot));
	if (what & SB_SLOT_REPLY)
		sb_note_reply(ctx, slot, service);
}
#endif

/* What a service's record has first for this protocol and family, if that is remembered, as UDP alone is; else 0. */
SB_INLINE __u32 sb_remembered(__u32 service, __u32 which)
{
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	const union sb_record *record;
	__u32 index, first;

	barrier_var(which); /* the verifier wants the check and the use in one register */
	if (!entry || which >= 4)
		return 0;
	index = READ_ONCE(entry->record);
	record = bpf_map_lookup_elem(&records, &index);
	first = record ? record->slot[which][0] : 0;
	return first & (SB_SLOT_STAY | SB_SLOT_REPLY) ? first : 0;
}

/*
 * UDP where flows stay or the asked address is noted, as most of its packets come: of a known flow, or to the newest
 * socket. 0: nothing has happened yet but that a flow was looked for.
 */
SB_GLOBAL int sb_deliver_remembered(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	__u32 first = sb_remembered(service, which), what = first & (SB_SLOT_STAY | SB_SLOT_REPLY), slot = 0;

	if (!first || !counter)
		return 0;
	if (first & SB_SLOT_STAY) {
		slot = sb_try_flow(ctx, sb_flow_hash(ctx, service), service);
		if (slot)
			what &= ~(__u32)SB_SLOT_STAY;
	}
	if (!slot) {
		if (first & (SB_SLOT_CHAIN | SB_SLOT_SHARE | SB_SLOT_REUSEPORT))
			return 0;
		slot = first & SB_SLOT_NUMBER;
		if (!assign(ctx, slot))
			return 0;
	}
	if (what)
		sb_remember(ctx, slot, service, what);
	SB_COUNT(counter->lookups);
	count_assigned(counter, service);
	return 1;
}

/*
 * The way of nearly all packets: the newest socket is there and takes it. Anything else is left to sb_deliver(), which
 * then starts from the beginning, so nothing is counted here but a success.
 */
SB_INLINE int sb_deliver_newest(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	__u32 slot;

	if (!entry || !counter)
		return 0;
	slot = READ_ONCE(entry->newest) >> (which * 16 & 48) & 0xffff;
	if (slot == SB_NEWEST_REMEMBERED || !assign(ctx, slot))
		return 0;
	SB_COUNT(counter->lookups);
	count_assigned(counter, service);
	return 1;
}

SB_GLOBAL int sb_deliver(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	__u64 fence = 0;
	__u32 index, slot = 0;

	if (!counter || !entry)
		return 0;
	if (sb_deliver_remembered(ctx, which, service))
		return 1;
	SB_COUNT(counter->lookups);
	index = READ_ONCE(entry->record);
	/*
	 * The broker switches the record before it takes a socket out of its slot. Who still holds the old record and
	 * finds the slot empty must look again, or a hand-over would refuse a client.
	 */
	SB_NO_UNROLL
	for (__u32 i = 0; i < 4; i++) {
		__u32 now;
		__u64 order;

		slot = sb_try_record(ctx, index, which, service);
		if (slot)
			break;
		/* The slot was read before the record is read again. Only an atomic whose result is used is a barrier.
		 */
		order = __sync_fetch_and_add(&fence, 1);
		asm volatile("" : : "r"(order) : "memory");
		now = READ_ONCE(entry->record);
		if (now == index)
			break;
		index = now;
	}
	if (!slot) {
		SB_COUNT(counter->no_socket);
		SB_TELL_STEP(service);
		return 0;
	}
	sb_remember(ctx, slot, service, sb_remembered(service, which));
	count_assigned(counter, service);
	return 1;
}

SB_INLINE void sb_count(__u32 index, int delivered)
{
	struct sb_binding_counter *counter = bpf_map_lookup_elem(&binding_counters, &index);

	if (!counter)
		return;
	SB_COUNT(counter->lookups);
	if (!delivered)
		SB_COUNT(counter->no_socket);
}

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	const struct sb_header *head = bpf_map_lookup_elem(&header, &zero);

	if (!head)
		return SK_PASS;
	return sb_walk(ctx, READ_ONCE(head->generation), head->lines);
}

#ifndef SB_EXPLAIN
/*
 * Never attached: the broker runs it by BPF_PROG_TEST_RUN to learn whether the socket in a slot takes lookups still.
 * One that its owner has shut down or connected stays in the map and keeps its cookie. So does a UDP socket that has
 * lost its port, be it that it was disconnected, be it that it was closed: of a socket that its owner had made one of
 * IPv4 (IPV6_ADDRFORM) the kernel does not know at the close that it is in a map. The slot comes as the client's
 * address: a test run takes no ingress interface.
 */
SEC("sk_lookup")
int probe(struct bpf_sk_lookup *ctx)
{
	__u32 slot = ctx->remote_ip4;
	struct bpf_sock *sk;

	barrier_var(slot); /* or clang makes one load of the two, from a computed place in the context */
	if (ctx->family == SB_AF_INET6)
		slot = ctx->remote_ip6[0];
	sk = bpf_map_lookup_elem(&sockets, &slot);
	if (sk) {
		if (sk->src_port)
			bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
		bpf_sk_release(sk);
	}
	return SK_PASS;
}

/*
 * Never attached by the broker: clients attach it to their listeners. In a SO_REUSEPORT group that has a program of
 * this kind the kernel hands what waits in a listener that closes to the others, whatever net.ipv4.tcp_migrate_req
 * says. Without a choice of ours it takes the one that its hash says.
 */
SEC("sk_reuseport/migrate")
int migrate(struct sk_reuseport_md *ctx)
{
	(void)ctx;
	return SK_PASS;
}
#endif

char _license[] SEC("license") = "Dual BSD/GPL";
