// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The dispatch program: which socket takes a new connection or an unconnected datagram. It owns the maps; the walk
 * through the rules is bpf/walk.h. Runs on 6.1, so it uses nothing newer. It must release every socket that it looks
 * up, and must read the generation, and a service's record, in one load each: these are the only switches.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"

/* The broker sets max_entries before it loads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_header);
} header SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union sb_line);
} arena SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct sb_table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union sb_record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_binding_counter);
} binding_counters SEC(".maps");

/* Values of eight bytes: user space then reads cookies from it. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SB_FLOW_LINES);
	__type(key, __u32);
	__type(value, struct sb_flow_line);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SB_REPLIES);
	__type(key, struct sb_client);
	__type(value, struct sb_asked);
} replies SEC(".maps");

/* Of the programs in cgroups of units. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct sb_unit);
} units SEC(".maps");

/* For the broker, but for the cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_registrant);
} registrants SEC(".maps");

/* The last two are for the broker alone. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_name);
} names SEC(".maps");

/* Which binding each of binding_counters is of, by a hash of all that makes it what it is. 0: of none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

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

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

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

static __always_inline void count_error(__u32 service, long error)
{
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);

	if (!counter)
		return;
	switch (error) {
	case -EPROTOTYPE:
		SB_COUNT(counter->error_protocol);
		SB_TELL(SB_TRACE_PROTOCOL);
		break;
	case -EAFNOSUPPORT:
		SB_COUNT(counter->error_family);
		SB_TELL(SB_TRACE_FAMILY);
		break;
	case -ESOCKTNOSUPPORT:
		SB_COUNT(counter->error_state);
		SB_TELL(SB_TRACE_STATE);
		break;
	case -EEXIST:
		SB_COUNT(counter->error_exists);
		SB_TELL(SB_TRACE_OTHER);
		break;
	default:
		SB_COUNT(counter->error_other);
		SB_TELL(SB_TRACE_OTHER);
	}
}

/* Gives the packet to the socket in the slot. Not 0: it took it. */
SB_GLOBAL __u32 sb_try_slot(struct bpf_sk_lookup *ctx, __u32 slot, __u64 flags, __u32 service)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &slot);
	long error;

	if (!sk)
		return 0; /* its last descriptor was closed */
	error = bpf_sk_assign(ctx, sk, SB_ASSIGN_FLAGS(flags));
	bpf_sk_release(sk);
	if (!error)
		return slot;
	count_error(service, error);
	return 0;
}

static __always_inline __u64 assign_flags(__u32 first_slot)
{
	return first_slot & SB_SLOT_REUSEPORT ? BPF_SK_LOOKUP_F_REPLACE
					      : BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE;
}

static __always_inline __u64 flow_of(const struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	const struct sb_header *head = bpf_map_lookup_elem(&header, &zero);
	__u64 flow = head ? head->secret : 0;

	flow = sb_flow(flow, sb_half(ctx->remote_port, ctx->local_port << 8 | ctx->protocol));
	if (ctx->family == SB_AF_INET)
		return sb_flow(flow, sb_half(ctx->remote_ip4, ctx->local_ip4));
	flow = sb_flow(flow, sb_half(ctx->remote_ip6[0], ctx->remote_ip6[1]));
	flow = sb_flow(flow, sb_half(ctx->remote_ip6[2], ctx->remote_ip6[3]));
	flow = sb_flow(flow, sb_half(ctx->local_ip6[0], ctx->local_ip6[1]));
	return sb_flow(flow, sb_half(ctx->local_ip6[2], ctx->local_ip6[3]));
}

/* The one of `count` slots that is worth most to the flow, if more than `best` and below `limit`. */
static __always_inline __u64 best_of(const __u32 *slots, __u32 count, __u64 flow, __u64 limit, __u64 best)
{
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < count; i++) {
		__u32 slot = slots[i] & SB_SLOT_NUMBER;
		__u64 worth = sb_worth(flow, slot);

		if (slot && worth > best && worth < limit)
			best = worth;
	}
	return best;
}

/* A record of a chain for itself: the verifier would follow loops in one another through the product of their rounds.
 */
SB_GLOBAL __u64 sb_best_in_chain(__u32 index, __u64 flow, __u64 limit, __u64 best)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);

	return record ? best_of(record->chain.slot, SB_CHAIN, flow, limit, best) : best;
}

/* The record after this one. 0: none. */
static __always_inline __u32 next_in_chain(__u32 index)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);

	return record ? record->chain.next : 0;
}

/* Of the slots that a record shares among, the one worth most to the flow, if below `limit`. 0: none. */
SB_GLOBAL __u32 sb_best_slot(__u32 index, __u32 which, __u64 flow, __u64 limit)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);
	__u64 best = 0;

	if (!record || which >= 4)
		return 0;
	if (!(record->slot[which][0] & SB_SLOT_CHAIN))
		return best_of(record->slot[which], SB_DEPTH, flow, limit, 0) & SB_SLOT_NUMBER;
	index = record->slot[which][0] & SB_SLOT_NUMBER;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_CHAINED_RECORDS && index; i++) {
		best = sb_best_in_chain(index, flow, limit, best);
		index = next_in_chain(index);
	}
	return best & SB_SLOT_NUMBER;
}

/* Tries all slots of one record of a chain. The slot that took the packet, 0: none did; so do those that follow. */
SB_GLOBAL __u32 sb_try_chained(struct bpf_sk_lookup *ctx, __u32 index, __u64 flags, __u32 service)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);

	if (!record)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_CHAIN; i++) {
		__u32 slot = record->chain.slot[i] & SB_SLOT_NUMBER;

		if (slot && sb_try_slot(ctx, slot, flags, service))
			return slot;
	}
	return 0;
}

/* Tries all slots of a chain. Only after a mass death, until the broker has tidied up. */
static __always_inline __u32 try_chain(struct bpf_sk_lookup *ctx, __u32 index, __u64 flags, __u32 service)
{
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_CHAINED_RECORDS && index; i++) {
		__u32 slot = sb_try_chained(ctx, index, flags, service);

		if (slot)
			return slot;
		index = next_in_chain(index);
	}
	return 0;
}

/* A dead socket's flows go to the next in their own order, so that they too are spread and the others stay. */
SB_GLOBAL __u32 sb_try_shared(struct bpf_sk_lookup *ctx, __u32 index, __u32 which, __u32 service, __u32 first)
{
	__u64 flow = flow_of(ctx), limit = ~0ULL, flags = assign_flags(first);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_SHARE_TRIES; i++) {
		__u32 slot = sb_best_slot(index, which, flow, limit);

		if (!slot)
			return 0;
		if (sb_try_slot(ctx, slot, flags, service))
			return slot;
		limit = sb_worth(flow, slot);
	}
	if (!(first & SB_SLOT_CHAIN))
		return 0;
	return try_chain(ctx, first & SB_SLOT_NUMBER, flags, service);
}

/* Tries the sockets of one record. */
SB_GLOBAL __u32 sb_try_record(struct bpf_sk_lookup *ctx, __u32 index, __u32 which, __u32 service)
{
	const union sb_record *record = bpf_map_lookup_elem(&records, &index);
	__u32 first;

	if (!record || which >= 4)
		return 0;
	first = record->slot[which][0];
	if (first & SB_SLOT_SHARE) {
		SB_TELL(SB_TRACE_SHARE);
		return sb_try_shared(ctx, index, which, service, first);
	}
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_DEPTH; i++) {
		__u32 slot = record->slot[which][i] & SB_SLOT_NUMBER;

		if (slot && sb_try_slot(ctx, slot, assign_flags(first), service))
			return slot;
	}
	return 0;
}

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
 * Never attached: the broker runs it by BPF_PROG_TEST_RUN to learn whether the socket in a slot takes look-ups still.
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
