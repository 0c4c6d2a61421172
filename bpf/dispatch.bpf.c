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
	__type(value, struct sb_meta);
} meta SEC(".maps");

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
	__type(value, struct sb_record);
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

/* The last three are for the broker alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sb_registrant);
} registrants SEC(".maps");

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

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define SB_GLOBAL __noinline

static __always_inline const union sb_line *sb_line_at(__u32 index)
{
	return bpf_map_lookup_elem(&arena, &index);
}

static __always_inline const struct sb_table *sb_table_at(__u32 index)
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
		counter->error_protocol++;
		break;
	case -EAFNOSUPPORT:
		counter->error_family++;
		break;
	case -ESOCKTNOSUPPORT:
		counter->error_state++;
		break;
	case -EEXIST:
		counter->error_exists++;
		break;
	default:
		counter->error_other++;
	}
}

/* Tries the sockets of one record. 1: one of them took the packet. */
SB_GLOBAL int sb_try_record(struct bpf_sk_lookup *ctx, __u32 index, __u32 which, __u32 service)
{
	const struct sb_record *record = bpf_map_lookup_elem(&records, &index);

	if (!record || which >= 4)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SB_DEPTH; i++) {
		__u32 slot = record->slot[which][i];
		struct bpf_sock *sk;
		long error;

		if (!slot)
			continue;
		sk = bpf_map_lookup_elem(&sockets, &slot);
		if (!sk)
			continue; /* its last descriptor was closed */
		error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
		bpf_sk_release(sk);
		if (!error)
			return 1;
		count_error(service, error);
	}
	return 0;
}

/*
 * The way of nearly all packets: the newest socket is there and takes it. Anything else is left to sb_deliver(), which
 * then starts from the beginning, so nothing is counted here but a success.
 */
static __always_inline int sb_deliver_newest(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	const struct sb_record *record;
	struct bpf_sock *sk;
	__u32 index, slot;
	long error;

	if (!entry || !counter || which >= 4)
		return 0;
	index = READ_ONCE(entry->record);
	record = bpf_map_lookup_elem(&records, &index);
	if (!record)
		return 0;
	slot = record->slot[which][0];
	sk = bpf_map_lookup_elem(&sockets, &slot);
	if (!sk)
		return 0;
	error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
	bpf_sk_release(sk);
	if (error)
		return 0;
	counter->lookups++;
	counter->assigned++;
	return 1;
}

SB_GLOBAL int sb_deliver(struct bpf_sk_lookup *ctx, __u32 which, __u32 service)
{
	struct sb_counters *counter = bpf_map_lookup_elem(&counters, &service);
	const struct sb_service *entry = bpf_map_lookup_elem(&services, &service);
	__u32 index;
	__u64 fence = 0;

	if (!counter || !entry)
		return 0;
	counter->lookups++;
	index = READ_ONCE(entry->record);
	/*
	 * The broker switches the record before it takes a socket out of its slot. Who still holds the old record and
	 * finds the slot empty must look again, or a hand-over would refuse a client.
	 */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 4; i++) {
		__u64 order;
		__u32 now;

		if (sb_try_record(ctx, index, which, service)) {
			counter->assigned++;
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
	counter->no_socket++;
	return 0;
}

static __always_inline void sb_count(__u32 index, int delivered)
{
	struct sb_binding_counter *counter = bpf_map_lookup_elem(&binding_counters, &index);

	if (!counter)
		return;
	counter->lookups++;
	if (!delivered)
		counter->no_socket++;
}

#include "bpf/walk.h"

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	const struct sb_meta *head = bpf_map_lookup_elem(&meta, &zero);

	if (!head)
		return SK_PASS;
	return sb_walk(ctx, READ_ONCE(head->generation), head->lines);
}

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

	asm volatile("" : "+r"(slot)); /* or clang makes one load of the two, from a computed place in the context */
	if (ctx->family == SB_AF_INET6)
		slot = ctx->remote_ip6[0];
	sk = bpf_map_lookup_elem(&sockets, &slot);
	if (sk) {
		bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
		bpf_sk_release(sk);
	}
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
