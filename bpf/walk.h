/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The walk of one lookup through the rule memory: which rules match, in which order. No map and no helper is named
 * here, so that the same lines run in the kernel and in the unit test of the compiler: whoever includes it gives what
 * is declared first, and in bpf/find.h.
 */
#pragma once

#include <linux/bpf.h>

#include "bpf/find.h"
#include "bpf/layout.h"
#include "bpf/port_table.h"

enum { SB_GO_ON = 2 }; /* beside SK_DROP and SK_PASS */

#ifndef SB_INGRESS
#define SB_INGRESS(ctx) ((ctx)->ingress_ifindex)
#endif
#ifndef SB_NO_CLIENT
#define SB_NO_CLIENT(ctx) 0 /* a packet has one; a question may leave it open */
#endif

#ifdef __cplusplus
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast" /* this is C */
#endif

/* 1: a socket of the service took the packet, 0: it has none. */
int sb_deliver(struct bpf_sk_lookup *ctx, __u32 which, __u32 service);
/* The same for the newest socket alone, and for one of a service that remembers. 0: nothing has happened yet. */
SB_GIVEN int sb_deliver_newest(struct bpf_sk_lookup *ctx, __u32 which, __u32 service);
int sb_deliver_remembered(struct bpf_sk_lookup *ctx, __u32 which, __u32 service);
/* Counts for one binding. */
SB_GIVEN void sb_count(__u32 counter, int delivered);

/* Whether the first `length` bits of this word of two prefixes are the same. */
SB_INLINE int sb_same_bits(__u32 a, __u32 b, __u32 length)
{
	if (length == 0)
		return 1;
	if (length >= 32)
		return a == b;
	return SB_NET32(a ^ b) >> (32 - length) == 0;
}

SB_INLINE __u32 sb_bits_left(__u32 length, __u32 word)
{
	return length > word * 32 ? length - word * 32 : 0;
}

SB_INLINE int sb_matches(const struct sb_condition *condition, const struct bpf_sk_lookup *ctx)
{
	__u32 length = condition->where & 0xff;
	__u32 ifindex = condition->where >> 8;

	if (ifindex && ifindex != SB_INGRESS(ctx))
		return 0;
	if (length && SB_NO_CLIENT(ctx))
		return 0;
	if (ctx->family == SB_AF_INET)
		return sb_same_bits(condition->source[0], ctx->remote_ip4, length);
	return sb_same_bits(condition->source[0], ctx->remote_ip6[0], length) &&
	       sb_same_bits(condition->source[1], ctx->remote_ip6[1], sb_bits_left(length, 1)) &&
	       sb_same_bits(condition->source[2], ctx->remote_ip6[2], sb_bits_left(length, 2)) &&
	       sb_same_bits(condition->source[3], ctx->remote_ip6[3], sb_bits_left(length, 3));
}

/* The counter of a rule's own, behind its condition. 0: none. */
SB_INLINE __u32 sb_counter_of(const union sb_line *line, __u32 reference, __u32 family)
{
	__u32 word = reference % SB_LINE_WORDS + (family == SB_AF_INET ? 5 : 8);

	barrier_var(word); /* the verifier wants the check and the use in one register */
	return word < SB_LINE_WORDS ? line->words[word] : 0;
}

/* The rule at this reference, or NULL. */
SB_INLINE const struct sb_rule *sb_rule_at(const struct sb_packet *packet, __u32 reference)
{
	const union sb_line *line = sb_line_at(packet->base + reference / SB_LINE_WORDS);
	__u32 offset = (reference % SB_LINE_WORDS) * 4;

	if (!line || offset > SB_LINE_BYTES - sizeof(struct sb_rule))
		return 0;
	return (const struct sb_rule *)((const char *)line + offset);
}

/* The reference for the packet's port in the table of ports at packet->next. A call, for the verifier's sake. */
SB_GLOBAL __u32 sb_port_reference(const struct sb_packet *packet)
{
	const struct sb_rule *rule = packet ? sb_rule_at(packet, packet->next) : 0;

	return rule ? sb_search_ports(packet->base + rule->next, rule->first + 1U, packet->port) : 0;
}

/* Tries the rule at packet->next. SK_DROP and SK_PASS decide; SB_GO_ON: there is another one. */
SB_GLOBAL int sb_step(struct bpf_sk_lookup *ctx, struct sb_packet *packet)
{
	const union sb_line *line;
	const struct sb_rule *rule;
	__u32 reference, offset;
	int delivered;

	if (!packet || !packet->next)
		return SK_PASS;
	reference = packet->next;
	offset = (reference % SB_LINE_WORDS) * 4;
	line = sb_line_at(packet->base + reference / SB_LINE_WORDS);
	if (!line || offset > SB_LINE_BYTES - sizeof(*rule))
		return SK_PASS;
	rule = (const struct sb_rule *)((const char *)line + offset);
	if (packet->loopback && (rule->flags & SB_RULE_SHORT))
		return SK_PASS; /* whatever follows is of a shorter prefix still */
	if (rule->flags & SB_RULE_PORTS) {
		packet->next = sb_port_reference(packet);
		return SB_GO_ON;
	}
	packet->next = rule->next;
	if (packet->port < rule->first || packet->port > rule->last)
		return SB_GO_ON;
	if (rule->flags & SB_RULE_CONDITION) {
		barrier_var(offset); /* the verifier wants the pointer made after the check */
		if (offset > SB_CONDITION_WORD * 4)
			return SK_PASS;
		if (!sb_matches((const struct sb_condition *)((const char *)line + offset + sizeof(*rule)), ctx))
			return SB_GO_ON;
	}
	delivered = sb_deliver(ctx, packet->which, rule->flags & SB_RULE_SERVICE);
	if (rule->flags & SB_RULE_COUNTED)
		sb_count(sb_counter_of(line, reference, ctx->family), delivered);
	if (delivered)
		return SK_PASS;
	switch ((rule->flags & SB_RULE_ABSENT) >> SB_RULE_ABSENT_SHIFT) {
	case SB_ABSENT_REFUSE:
		return SK_DROP;
	case SB_ABSENT_NEXT:
		return SB_GO_ON;
	default:
		return SK_PASS;
	}
}

/* Tries so many rules: loops in two functions cost the verifier the sum of their rounds, one loop all of them. */
enum { SB_STEPS_AT_ONCE = 32, SB_STEP_ROUNDS = SB_MAX_STEPS / 32 };

SB_GLOBAL int sb_steps(struct bpf_sk_lookup *ctx, struct sb_packet *packet)
{
	SB_NO_UNROLL
	for (__u32 i = 0; i < SB_STEPS_AT_ONCE; i++) {
		int verdict = sb_step(ctx, packet);

		if (verdict != SB_GO_ON)
			return verdict;
	}
	return SB_GO_ON;
}

/* Whether the flags that a probe found are of a rule that may serve this packet. */
SB_INLINE int sb_plain(const struct sb_packet *packet, __u32 flags)
{
	return flags && !(flags & SB_RULE_SHORT && packet->loopback);
}

/*
 * Tries the rule at packet->next or, if that is a table of ports, the one that the table has for the port; packet->next
 * becomes it. Plain rules alone, whose service has its newest socket or remembers. 1: a socket took the packet, 0:
 * nothing has happened yet.
 */
SB_GLOBAL int sb_try_plain(struct bpf_sk_lookup *ctx, struct sb_packet *packet)
{
	const struct sb_rule *rule = packet ? sb_rule_at(packet, packet->next) : 0;
	__u32 service;

	if (!rule || !sb_plain(packet, rule->flags))
		return 0;
	if (rule->flags & SB_RULE_PORTS) {
		packet->next = sb_port_reference(packet);
		rule = packet->next ? sb_rule_at(packet, packet->next) : 0;
	}
	if (!rule || !sb_plain(packet, rule->flags) || rule->flags & (SB_RULE_PORTS | SB_RULE_CONDITION) ||
	    packet->port < rule->first || packet->port > rule->last)
		return 0;
	service = rule->flags & SB_RULE_SERVICE;
	return sb_deliver_newest(ctx, packet->which, service) || sb_deliver_remembered(ctx, packet->which, service);
}

/*
 * Where the first probe found nothing. SB_GO_ON: the rule packet->next is to be tried, or none is left.
 */
SB_GLOBAL int sb_next_length(struct bpf_sk_lookup *ctx, struct sb_packet *packet)
{
	const struct sb_table *table = packet ? sb_table_at(packet->table) : 0;
	__u64 found;

	if (!table)
		return SK_PASS;
	found = packet->which & 1 ? sb_next6(packet, table) : sb_next4(packet, table);
	packet->next = found;
	if (sb_plain(packet, found >> 32) && sb_deliver_newest(ctx, packet->which, found >> 32 & SB_RULE_SERVICE))
		return SK_PASS;
	return SB_GO_ON;
}

/* Whatever the line at hand did not decide: out of the way of the packets that it does. */
SB_INLINE int sb_walk_on(struct bpf_sk_lookup *ctx, struct sb_packet *packet)
{
	if (!packet->next && sb_next_length(ctx, packet) != SB_GO_ON)
		return SK_PASS;
	if (packet->next && sb_try_plain(ctx, packet))
		return SK_PASS;
	SB_NO_UNROLL
	for (__u32 i = 0; i < SB_STEP_ROUNDS; i++) {
		int verdict = sb_steps(ctx, packet);

		if (verdict != SB_GO_ON)
			return verdict & 1; /* the verifier wants to see that it is SK_DROP or SK_PASS */
	}
	return SK_PASS;
}

/* The whole of one lookup. `generation` is read once by the caller: all else follows from it. */
SB_INLINE int sb_walk(struct bpf_sk_lookup *ctx, __u32 generation, __u32 lines)
{
	const struct sb_table *table;
	struct sb_packet packet;
	__u64 found;

	packet.which = ctx->family == SB_AF_INET ? 0 : 1;
	if (ctx->protocol == SB_UDP)
		packet.which += SB_WHICH(1, 0);
	else if (SB_RARELY(ctx->protocol != SB_TCP))
		return SK_PASS;
	packet.base = generation ? lines : 0;
	packet.table = (generation ? 4 : 0) + packet.which;
	packet.port = ctx->local_port; /* host order, unlike remote_port */
	table = sb_table_at(packet.table);
	if (SB_RARELY(!table))
		return SK_PASS;
	if (ctx->family == SB_AF_INET) {
		packet.high = ctx->local_ip4;
		packet.low = 0;
		if (!sb_maybe_covered(table, packet.high))
			return SK_PASS;
		packet.loopback = ((__u32)packet.high & SB_NET32(0xff000000)) == SB_NET32(0x7f000000);
		found = sb_first4(table, &packet);
	} else if (ctx->family == SB_AF_INET6) {
		packet.high = sb_half(ctx->local_ip6[0], ctx->local_ip6[1]);
		if (!sb_maybe_covered(table, packet.high))
			return SK_PASS;
		packet.low = sb_half(ctx->local_ip6[2], ctx->local_ip6[3]);
		packet.loopback = packet.high == 0 && packet.low == sb_half(0, SB_NET32(1));
		found = sb_first6(table, &packet);
	} else {
		return SK_PASS;
	}
	/* Nearly every packet ends here. */
	if (sb_plain(&packet, found >> 32) && sb_deliver_newest(ctx, packet.which, found >> 32 & SB_RULE_SERVICE))
		return SK_PASS;
	if (!found && packet.length >= table->count)
		return SK_PASS;
	packet.next = found;
	return sb_walk_on(ctx, &packet);
}

#ifdef __cplusplus
#pragma GCC diagnostic pop
#endif
