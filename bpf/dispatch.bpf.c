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

/*
 * The way of nearly all packets: the newest socket is there and takes it. Anything else is left to sb_deliver(), which
 * then starts from the beginning, so nothing is counted here but a success.
 */
SB_INLINE int sb_deliver_newest(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	struct bpf_sock *sk;
	__u32 slot;
	long error;

	if (!entry || !counter)
		return 0;
	slot = READ_ONCE(entry->newest) >> (which * 16 & 48) & 0xffff;
	sk = bpf_map_lookup_elem(&sockets, &slot); /* none is ever in slot 0 */
	if (!sk)
		return 0;
	error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	if (error)
		return 0;
	SB_COUNT(counter->lookups);
	SB_COUNT(counter->assigned);
	SB_TELL(SB_TRACE_DELIVERED);
	SB_TELL_STEP(service);
	return 1;
}

/* What is remembered of packets to this service, protocol and family: SB_SLOT_STAY, SB_SLOT_REPLY. */
SB_GLOBAL __u32 sb_remembers(__u32 index, __u32 which)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);

	if (!record || which >= 4)
		return 0;
	return record->slot[which][0] & (SB_SLOT_STAY | SB_SLOT_REPLY);
}

#ifdef SB_EXPLAIN
#define sb_remember(ctx, slot, service, what, flow) ((void)(slot))
#else
/* The packet went to the socket in this slot. One call, so that the verifier follows what it does only once. */
SB_GLOBAL int sb_remember(struct bpf_sk_lookup *ctx, __u32 slot, __u32 service, __u32 what, __u64 flow)
{
	if (what & SB_SLOT_STAY)
		sb_note_flow(flow, slot);
	if (what & SB_SLOT_REPLY)
		sb_note_reply(ctx, slot, service);
	return 1;
}
#endif

static __always_inline void count_assigned(struct sb_counters *counter, __u32 service)
{
	(void)service;
	SB_COUNT(counter->assigned);
	SB_TELL(SB_TRACE_DELIVERED);
	SB_TELL_STEP(service);
}

SB_GLOBAL int sb_deliver(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	__u32 index, remembers;
	__u64 fence = 0, flow = 0;

	if (!counter || !entry)
		return 0;
	SB_COUNT(counter->lookups);
	index = READ_ONCE(entry->record);
	remembers = which >= SB_WHICH(1, 0) ? sb_remembers(index, which) : 0;
	if (SB_RARELY(remembers & SB_SLOT_STAY)) {
		__u32 slot;

		flow = sb_flow_hash(ctx, service);
		slot = sb_try_flow(ctx, flow, service);
		if (slot) {
			sb_remember(ctx, slot, service, remembers & SB_SLOT_REPLY, 0);
			count_assigned(counter, service);
			return 1;
		}
	}
	/*
	 * The broker switches the record before it takes a socket out of its slot. Who still holds the old record and
	 * finds the slot empty must look again, or a hand-over would refuse a client.
	 */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 4; i++) {
		__u32 now, slot = sb_try_record(ctx, index, which, service);
		__u64 order;

		if (slot) {
			if (SB_RARELY(remembers))
				sb_remember(ctx, slot, service, remembers, flow);
			count_assigned(counter, service);
			return 1;
		}
		/* The slot was read before the record is read again. Only an atomic whose result is used is a barrier.
		 */
		order = __sync_fetch_and_add(&fence, 1);
		asm volatile("" : : "r"(order) : "memory");
		now = READ_ONCE(entry->record);
		if (now == index)
			break;
		index = now;
	}
	SB_COUNT(counter->no_socket);
	SB_TELL_STEP(service);
	return 0;
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
 * One that its owner has shut down or connected stays in the map and keeps its cookie. The slot comes as the client's
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
