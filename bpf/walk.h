/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The walk of one look-up through the rule memory: which rules match, in which order. No map and no helper is named
 * here, so that the same lines run in the kernel and in the unit test of the compiler. The includer gives
 *   SB_GLOBAL            what stands before a function that the verifier is to check once, for all arguments
 *   sb_line_at(index)    the arena line, or NULL
 *   sb_table_at(index)   the table, or NULL
 *   sb_deliver(ctx, which, service)  1: a socket took the packet, 0: the service has none
 *   sb_count(counter, delivered)  counts for one binding
 *   sb_deliver_newest(ctx, which, service)  the same for the newest socket alone; 0: nothing has happened yet
 */
#pragma once

#include <linux/bpf.h>

#include "bpf/layout.h"

#define SB_TCP 6
#define SB_UDP 17
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SB_NET32(x) __builtin_bswap32(x)
#else
#define SB_NET32(x) (x)
#endif

#ifdef __clang__
#define SB_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define SB_NO_UNROLL
#endif

enum { SB_GO_ON = 2 }; /* beside SK_DROP and SK_PASS */

struct sb_packet {
	__u32 base;  /* first arena line of the generation */
	__u32 which; /* SB_WHICH() */
	__u32 port;
	__u32 loopback;
	__u32 next; /* out: the reference to try when sb_step() says SB_GO_ON */
};

/*
 * A bucket is compared load by load: branches that are predicted beat masks. The place in the line, in words; 0: none.
 */
SB_INLINE __u32 sb_in_line4(const union sb_line *line, __u32 key)
{
	if (line->v4.key[0] == key && line->v4.rule[0].flags)
		return 4;
	if (line->v4.key[1] == key && line->v4.rule[1].flags)
		return 7;
	if (line->v4.key[2] == key && line->v4.rule[2].flags)
		return 10;
	if (line->v4.key[3] == key && line->v4.rule[3].flags)
		return 13;
	return 0;
}

SB_INLINE __u32 sb_in_line6(const union sb_line *line, __u64 key)
{
	if (line->v6.key[0] == key && line->v6.rule[0].flags)
		return 6;
	if (line->v6.key[1] == key && line->v6.rule[1].flags)
		return 9;
	if (line->v6.key[2] == key && line->v6.rule[2].flags)
		return 12;
	return 0;
}

SB_INLINE __u32 sb_in_line6_long(const union sb_line *line, __u64 high, __u64 low)
{
	if (line->v6_long.key[0][1] == low && line->v6_long.key[0][0] == high && line->v6_long.rule[0].flags)
		return 8;
	if (line->v6_long.key[1][1] == low && line->v6_long.key[1][0] == high && line->v6_long.rule[1].flags)
		return 11;
	return 0;
}

/*
 * What a look-up for a prefix gives: in the lower half the reference, 0 for none; in the upper the rule's flags, if the
 * rule is a plain one that matches the port, else 0. So nearly every packet is decided by the line at hand.
 */
SB_INLINE __u64 sb_found(const union sb_line *line, __u32 at, __u32 word, __u32 port)
{
	const struct sb_rule *rule = (const struct sb_rule *)(line->words + word);
	__u64 flags = rule->flags;
	__u64 reference = at * SB_LINE_WORDS + word;

	if (flags & (SB_RULE_PORTS | SB_RULE_CONDITION) || port < rule->first || port > rule->last)
		return reference;
	return flags << 32 | reference;
}

/*
 * The second line of a key, where its first is full and says so: kept out of the loops over the lengths, which would
 * cost the verifier that much more.
 */
SB_GLOBAL __u64 sb_spill4(__u32 base, __u32 at, __u32 key, __u32 port)
{
	const union sb_line *line = sb_line_at(base + at);
	__u32 word = line ? sb_in_line4(line, key) : 0;

	return word ? sb_found(line, at, word, port) : 0;
}

SB_GLOBAL __u64 sb_spill6(__u32 base, __u32 at, __u64 key, __u32 port)
{
	const union sb_line *line = sb_line_at(base + at);
	__u32 word = line ? sb_in_line6(line, key) : 0;

	return word ? sb_found(line, at, word, port) : 0;
}

SB_GLOBAL __u64 sb_spill6_long(__u32 base, __u32 at, __u64 high, __u64 low, __u32 port)
{
	const union sb_line *line = sb_line_at(base + at);
	__u32 word = line ? sb_in_line6_long(line, high, low) : 0;

	return word ? sb_found(line, at, word, port) : 0;
}

/* Most addresses that no prefix covers are known by their first 16 bits, without a probe. */
SB_INLINE int sb_maybe_covered(const struct sb_table *table, __u32 first)
{
	__u32 place = SB_NET32(first) >> 16;

	return table->present[place >> 6] >> (place & 63) & 1;
}

/* Which lengths to probe for an address with this hash of its first bits. */
SB_INLINE __u32 sb_candidates(const struct sb_table *table, __u32 base, __u32 hash)
{
	__u32 at = sb_scale(hash, table->filter.lines * SB_LINE_WORDS);
	const union sb_line *line = sb_line_at(base + table->filter.first + at / SB_LINE_WORDS);

	return line ? line->words[at % SB_LINE_WORDS] : 0;
}

/* Takes the next length from the order; `i` is the one before, plus one. */
SB_INLINE __u32 sb_take_length(const struct sb_table *table, __u32 *order, __u32 i)
{
	__u32 code = *order & ((1 << SB_CANDIDATE_BITS) - 1);

	*order >>= SB_CANDIDATE_BITS;
	if (!code)
		return i;
	return code == SB_CANDIDATE_END ? table->always : code - 1;
}

/*
 * One probe: whether a prefix of the length stands for the address, as sb_found(). Inline for as many lengths as an
 * order can name, and one more; the verifier would follow each further one through all of its branches as well, so
 * those are probed by a call of a function that it looks at once.
 */
enum { SB_INLINE_PROBES = SB_CANDIDATES + 1 };

SB_INLINE __u64 sb_probe4(const struct sb_length *length, __u32 base, __u32 address, __u32 port)
{
	__u32 key = address & (__u32)length->mask[0];
	__u32 hash = sb_hash(key, length->seed);
	__u32 at = length->first + sb_scale(hash, length->lines);
	const union sb_line *line = sb_line_at(base + at);
	__u32 word;

	if (!line)
		return 0;
	word = sb_in_line4(line, key);
	if (word)
		return sb_found(line, at, word, port);
	if (line->v4.rule[0].flags & SB_RULE_OVERFLOW)
		return sb_spill4(base, length->first + sb_scale(sb_second(hash), length->lines), key, port);
	return 0;
}

SB_GLOBAL __u64 sb_probe4_more(__u32 table_index, __u32 i, __u32 base, __u32 address, __u32 port)
{
	const struct sb_table *table = sb_table_at(table_index);

	if (!table || i >= SB_MAX_LENGTHS)
		return 0;
	return sb_probe4(&table->lengths[i], base, address, port);
}

/* The longest prefix that covers the address, as sb_found(). */
SB_GLOBAL __u64 sb_find4(__u32 table_index, __u32 base, __u32 address, __u32 port)
{
	const struct sb_table *table = sb_table_at(table_index);
	__u32 order = 0, next = 0;

	if (!table || !sb_maybe_covered(table, address))
		return 0;
	if (table->filter.lines)
		order = sb_candidates(table, base, sb_hash(address & (__u32)table->filter.mask[0], table->filter.seed));
	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_INLINE_PROBES; n++) {
		__u32 i = sb_take_length(table, &order, next);
		__u64 found;

		if (i >= table->count || i >= SB_MAX_LENGTHS)
			return 0;
		next = i + 1;
		found = sb_probe4(&table->lengths[i], base, address, port);
		if (found)
			return found;
	}
	SB_NO_UNROLL
	for (__u32 n = 0; n < 33 && next < table->count; n++, next++) {
		__u64 found = sb_probe4_more(table_index, next, base, address, port);

		if (found)
			return found;
	}
	return 0;
}

/* The same for IPv6, whose buckets have two shapes. */
SB_INLINE __u64 sb_probe6(const struct sb_length *length, __u32 is_long, __u32 base, __u64 high, __u64 low, __u32 port)
{
	__u64 key = is_long ? low & length->mask[1] : high & length->mask[0];
	__u32 hash = is_long ? sb_hash_long(high, key, length->seed) : sb_hash(key, length->seed);
	__u32 at = length->first + sb_scale(hash, length->lines);
	const union sb_line *line = sb_line_at(base + at);
	__u32 word;

	if (!line)
		return 0;
	word = is_long ? sb_in_line6_long(line, high, key) : sb_in_line6(line, key);
	if (word)
		return sb_found(line, at, word, port);
	/* The first rule of either shape carries the mark. */
	if ((is_long ? line->v6_long.rule[0].flags : line->v6.rule[0].flags) & SB_RULE_OVERFLOW) {
		at = length->first + sb_scale(sb_second(hash), length->lines);
		return is_long ? sb_spill6_long(base, at, high, key, port) : sb_spill6(base, at, key, port);
	}
	return 0;
}

/* `place`: the table, times 256, plus the number of the length; a function takes five arguments. */
SB_GLOBAL __u64 sb_probe6_more(__u32 place, __u32 base, __u64 high, __u64 low, __u32 port)
{
	const struct sb_table *table = sb_table_at(place >> 8);
	__u32 i = place & 0xff;

	if (!table || i >= SB_MAX_LENGTHS)
		return 0;
	return sb_probe6(&table->lengths[i], i < table->long_count, base, high, low, port);
}

SB_GLOBAL __u64 sb_find6(__u32 table_index, __u32 base, __u64 high, __u64 low, __u32 port)
{
	const struct sb_table *table = sb_table_at(table_index);
	__u32 order = 0, next = 0;

	if (!table || !sb_maybe_covered(table, (__u32)high))
		return 0;
	if (table->filter.lines)
		order = sb_candidates(
			table, base,
			sb_hash_long(high & table->filter.mask[0], low & table->filter.mask[1], table->filter.seed));
	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_INLINE_PROBES; n++) {
		__u32 i = sb_take_length(table, &order, next);
		__u64 found;

		if (i >= table->count || i >= SB_MAX_LENGTHS)
			return 0;
		next = i + 1;
		found = sb_probe6(&table->lengths[i], i < table->long_count, base, high, low, port);
		if (found)
			return found;
	}
	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_MAX_LENGTHS && next < table->count; n++, next++) {
		__u64 found = sb_probe6_more(table_index << 8 | next, base, high, low, port);

		if (found)
			return found;
	}
	return 0;
}

/* 1 if the interval that starts there begins at or before the port, else 0. No branch, which nobody could predict. */
SB_INLINE __u32 sb_begun(__u32 start, __u32 port)
{
	__u32 before = (port - start) >> 31;

	asm volatile("" : "+r"(before)); /* or clang makes a branch of it, and the verifier follows both ways */
	return before ^ 1;
}

/*
 * What to try for the port in a table of `count` port intervals that starts in this line: the last interval that starts
 * at or before the port. First the line is found, by what it begins with, then the place in it. What is left of the
 * last line holds 65535.
 */
SB_GLOBAL __u32 sb_search_ports(__u32 first_line, __u32 count, __u32 port)
{
	const union sb_line *line;
	__u32 lines = (count + 31) / 32;
	__u32 low = 0, high = lines; /* the line is in [low, high) */
	__u32 place;

	SB_NO_UNROLL
	for (__u32 i = 0; i < SB_SEARCH_STEPS; i++) {
		__u32 middle = (low + high) / 2;
		__u32 begun;

		if (high - low <= 1)
			break;
		line = sb_line_at(first_line + middle);
		if (!line)
			return 0;
		begun = sb_begun(line->starts[0], port);
		low += (middle - low) * begun;
		high -= (high - middle) * (begun ^ 1);
	}
	line = sb_line_at(first_line + low);
	if (!line)
		return 0;
	place = sb_begun(line->starts[16], port) * 16;
	place += sb_begun(line->starts[place + 8], port) * 8;
	place += sb_begun(line->starts[place + 4], port) * 4;
	place += sb_begun(line->starts[place + 2], port) * 2;
	place += sb_begun(line->starts[place + 1], port);
	low = low * 32 + place;
	if (low >= count)
		low = count - 1; /* port 65535 in the last line */
	line = sb_line_at(first_line + lines + low / 16);
	return line ? line->refs[low % 16] : 0;
}

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

	if (ifindex && ifindex != ctx->ingress_ifindex)
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

	asm volatile("" : "+r"(word)); /* the verifier wants the check and the use in one register */
	return word < SB_LINE_WORDS ? line->words[word] : 0;
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
		packet->next = sb_search_ports(packet->base + rule->next, rule->first + 1U, packet->port);
		return SB_GO_ON;
	}
	packet->next = rule->next;
	if (packet->port < rule->first || packet->port > rule->last)
		return SB_GO_ON;
	if (rule->flags & SB_RULE_CONDITION) {
		asm volatile("" : "+r"(offset)); /* the verifier wants the pointer made after the check */
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

/*
 * What sb_found() leaves open: a table of ports. The flags of what it has for the port, if that is a plain rule, else
 * 0; packet->next becomes the reference of it.
 */
SB_GLOBAL __u32 sb_plain_rule(struct sb_packet *packet)
{
	if (!packet)
		return 0;
	SB_NO_UNROLL
	for (__u32 i = 0; i < 2; i++) {
		__u32 offset = (packet->next % SB_LINE_WORDS) * 4;
		const union sb_line *line = sb_line_at(packet->base + packet->next / SB_LINE_WORDS);
		const struct sb_rule *rule;

		if (!line || offset > SB_LINE_BYTES - sizeof(*rule))
			return 0;
		rule = (const struct sb_rule *)((const char *)line + offset);
		if (!(rule->flags & SB_RULE_PORTS)) {
			int plain = !(rule->flags & SB_RULE_CONDITION) && packet->port >= rule->first &&
				    packet->port <= rule->last;

			return plain ? rule->flags : 0;
		}
		if (packet->loopback && (rule->flags & SB_RULE_SHORT))
			return 0;
		packet->next = sb_search_ports(packet->base + rule->next, rule->first + 1U, packet->port);
		if (!packet->next)
			return 0;
	}
	return 0;
}

/* The whole of one look-up. `generation` is read once by the caller: all else follows from it. */
SB_INLINE int sb_walk(struct bpf_sk_lookup *ctx, __u32 generation, __u32 lines)
{
	struct sb_packet packet = {};
	__u32 table, flags;
	__u64 found;

	if (ctx->protocol == SB_UDP)
		packet.which = SB_WHICH(1, 0);
	else if (ctx->protocol != SB_TCP)
		return SK_PASS;
	packet.base = generation ? lines : 0;
	packet.port = ctx->local_port; /* host order, unlike remote_port */
	table = (generation ? 4 : 0) + packet.which;
	if (ctx->family == SB_AF_INET) {
		packet.loopback = (ctx->local_ip4 & SB_NET32(0xff000000)) == SB_NET32(0x7f000000);
		found = sb_find4(table, packet.base, ctx->local_ip4, packet.port);
	} else if (ctx->family == SB_AF_INET6) {
		__u64 high = sb_half(ctx->local_ip6[0], ctx->local_ip6[1]);
		__u64 low = sb_half(ctx->local_ip6[2], ctx->local_ip6[3]);

		packet.which += SB_WHICH(0, 1);
		table += SB_WHICH(0, 1);
		packet.loopback = high == 0 && low == sb_half(0, SB_NET32(1));
		found = sb_find6(table, packet.base, high, low, packet.port);
	} else {
		return SK_PASS;
	}
	if (!found)
		return SK_PASS;
	packet.next = found;
	flags = found >> 32;
	if (!flags)
		flags = sb_plain_rule(&packet);
	/* Nearly every packet ends here: inline, since calls of global functions cost more than all of this. */
	if (flags && !(packet.loopback && (flags & SB_RULE_SHORT)) &&
	    sb_deliver_newest(ctx, packet.which, flags & SB_RULE_SERVICE))
		return SK_PASS;
	SB_NO_UNROLL
	for (__u32 i = 0; i < SB_STEP_ROUNDS; i++) {
		int verdict = sb_steps(ctx, &packet);

		if (verdict == SK_DROP) {
			verdict = SK_DROP;
			asm volatile("" : "+r"(verdict)); /* or clang returns what the verifier thinks unbounded */
			return verdict;
		}
		if (verdict != SB_GO_ON)
			return SK_PASS;
	}
	return SK_PASS;
}
