/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The longest prefix that covers an address: which lengths to probe, and one probe after another. The first one is
 * inline in the main program, since it decides nearly every packet and traffic arrives when the code is cold; the rest
 * is in functions that the verifier follows once. No map and no helper is named here, see bpf/walk.h.
 */
#pragma once

#include "bpf/layout.h"

#ifdef __bpf__
#define SB_GLOBAL __attribute__((noinline)) /* verified once, for all arguments */
#define SB_GIVEN SB_INLINE
#else
#define SB_GLOBAL static inline
#define SB_GIVEN extern
#endif
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif
#define SB_RARELY(condition) __builtin_expect(!!(condition), 0)

#ifdef __cplusplus
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast" /* this is C */
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SB_NET32(x) __builtin_bswap32(x)
#else
#define SB_NET32(x) (x)
#endif

SB_GIVEN const union sb_line *sb_line_at(__u32 index);	  /* of the arena; or NULL */
SB_GIVEN const struct sb_table *sb_table_at(__u32 index); /* or NULL */

/* Where a lookup is. */
struct sb_packet {
	__u64 high; /* the address: IPv4 in the lower half of `high` */
	__u64 low;
	__u32 base;  /* first arena line of the generation */
	__u32 table; /* index */
	__u32 which; /* SB_WHICH() */
	__u32 port;
	__u32 loopback;
	__u32 candidates; /* lengths to probe, as sb_candidates() gave them */
	__u32 length;	  /* the first that was not probed */
	__u32 next;	  /* reference of the rule to try; 0: none is left */
};

/*
 * What a probe finds: in the lower half the reference of the prefix's first rule, 0 for none; in the upper its flags,
 * if it is a plain one that matches the port, else 0. So nearly every packet is decided by the line at hand.
 */
SB_INLINE __u64 sb_found(const union sb_line *line, __u32 at, __u32 word, __u32 port)
{
	const struct sb_rule *rule = (const struct sb_rule *)(line->words + word);
	__u64 flags = rule->flags;
	__u64 reference = at * SB_LINE_WORDS + word;

	if (SB_RARELY(flags & (SB_RULE_PORTS | SB_RULE_CONDITION) || port < rule->first || port > rule->last))
		return reference;
	return flags << 32 | reference;
}

/*
 * A bucket is compared load by load: branches that are predicted beat masks. An empty cell has key 0 and no flags;
 * cells are filled from the first on. `at`: the line, from the start of the generation.
 */
SB_INLINE __u64 sb_in_line4(const union sb_line *line, __u32 at, __u32 key, __u32 port)
{
	if (line->v4.key[0] == key && line->v4.rule[0].flags)
		return sb_found(line, at, 4, port);
	if (line->v4.key[1] == key && line->v4.rule[1].flags)
		return sb_found(line, at, 7, port);
	if (line->v4.key[2] == key && line->v4.rule[2].flags)
		return sb_found(line, at, 10, port);
	if (line->v4.key[3] == key && line->v4.rule[3].flags)
		return sb_found(line, at, 13, port);
	return 0;
}

SB_INLINE __u64 sb_in_line6(const union sb_line *line, __u32 at, __u64 key, __u32 port)
{
	if (line->v6.key[0] == key && line->v6.rule[0].flags)
		return sb_found(line, at, 6, port);
	if (line->v6.key[1] == key && line->v6.rule[1].flags)
		return sb_found(line, at, 9, port);
	if (line->v6.key[2] == key && line->v6.rule[2].flags)
		return sb_found(line, at, 12, port);
	return 0;
}

SB_INLINE __u64 sb_in_line6_long(const union sb_line *line, __u32 at, __u64 high, __u64 low, __u32 port)
{
	if (line->v6_long.key[0][1] == low && line->v6_long.key[0][0] == high && line->v6_long.rule[0].flags)
		return sb_found(line, at, 8, port);
	if (line->v6_long.key[1][1] == low && line->v6_long.key[1][0] == high && line->v6_long.rule[1].flags)
		return sb_found(line, at, 11, port);
	return 0;
}

/* Most addresses that no prefix covers are known by their first 16 bits, without a probe. */
SB_INLINE int sb_maybe_covered(const struct sb_table *table, __u32 first)
{
	__u32 bit = SB_NET32(first) >> 16;

	return table->present[bit >> 6] >> (bit & 63) & 1;
}

/* The lengths to probe for an address with this hash of its first bits. */
SB_INLINE __u32 sb_candidates(const struct sb_table *table, __u32 base, __u32 hash)
{
	__u32 word = sb_scale(hash, table->filter.lines * SB_LINE_WORDS);
	const union sb_line *line = sb_line_at(base + table->filter.first + word / SB_LINE_WORDS);

	return line ? line->words[word % SB_LINE_WORDS] : 0;
}

/* Takes the next length from the candidates; `length` is the one after the last that was taken. */
SB_INLINE __u32 sb_take_length(const struct sb_table *table, __u32 *candidates, __u32 length)
{
	__u32 code = *candidates & ((1 << SB_CANDIDATE_BITS) - 1);

	*candidates >>= SB_CANDIDATE_BITS;
	if (!code)
		return length;
	return code == SB_CANDIDATE_END ? table->always : code - 1;
}

/* One probe of a length. `spill` becomes the line in which the key may stand besides, where this one overflowed. */
SB_INLINE __u64 sb_probe4(const struct sb_length *length, const struct sb_packet *packet, __u32 *spill)
{
	__u32 key = (__u32)packet->high & (__u32)length->mask;
	__u32 hash = sb_hash(key, length->seed);
	__u32 at = length->first + sb_scale(hash, length->lines);
	const union sb_line *line = sb_line_at(packet->base + at);
	__u64 found;

	if (!line)
		return 0;
	found = sb_in_line4(line, at, key, packet->port);
	if (!found && SB_RARELY(line->v4.rule[0].flags & SB_RULE_OVERFLOW))
		*spill = length->first + sb_scale(sb_second(hash), length->lines);
	return found;
}

SB_INLINE __u64 sb_probe6(const struct sb_length *length, __u32 is_long, const struct sb_packet *packet, __u32 *spill)
{
	__u64 key = (is_long ? packet->low : packet->high) & length->mask;
	__u32 hash = is_long ? sb_hash_long(packet->high, key, length->seed) : sb_hash(key, length->seed);
	__u32 at = length->first + sb_scale(hash, length->lines);
	const union sb_line *line = sb_line_at(packet->base + at);
	__u64 found;

	if (!line)
		return 0;
	found = is_long ? sb_in_line6_long(line, at, packet->high, key, packet->port)
			: sb_in_line6(line, at, key, packet->port);
	/* The first rule of either shape carries the mark. */
	if (!found && SB_RARELY((is_long ? line->v6_long.rule[0].flags : line->v6.rule[0].flags) & SB_RULE_OVERFLOW))
		*spill = length->first + sb_scale(sb_second(hash), length->lines);
	return found;
}

/* The second line of a key, where its first is full and says so. */
SB_INLINE __u64 sb_spilled4(const struct sb_length *length, const struct sb_packet *packet, __u32 at)
{
	const union sb_line *line = sb_line_at(packet->base + at);

	return line ? sb_in_line4(line, at, (__u32)packet->high & (__u32)length->mask, packet->port) : 0;
}

SB_INLINE __u64 sb_spilled6(const struct sb_length *length, __u32 is_long, const struct sb_packet *packet, __u32 at)
{
	const union sb_line *line = sb_line_at(packet->base + at);

	if (!line)
		return 0;
	if (is_long)
		return sb_in_line6_long(line, at, packet->high, packet->low & length->mask, packet->port);
	return sb_in_line6(line, at, packet->high & length->mask, packet->port);
}

/* The first probe, inline in the main program. packet->length is then the first that was not probed. */
SB_INLINE __u64 sb_first4(const struct sb_table *table, struct sb_packet *packet)
{
	const struct sb_length *filter = &table->filter;
	__u32 spill = 0;
	__u64 found;

	packet->candidates = 0;
	if (filter->lines)
		packet->candidates = sb_candidates(table, packet->base,
						   sb_hash((__u32)packet->high & (__u32)filter->mask, filter->seed));
	__u32 i = sb_take_length(table, &packet->candidates, 0);

	packet->length = i + 1;
	if (i >= table->count || i >= SB_MAX_LENGTHS)
		return 0;
	found = sb_probe4(&table->lengths[i], packet, &spill);
	return SB_RARELY(spill) ? sb_spilled4(&table->lengths[i], packet, spill) : found;
}

SB_INLINE __u64 sb_first6(const struct sb_table *table, struct sb_packet *packet)
{
	const struct sb_length *filter = &table->filter;
	__u32 hash, is_long, spill = 0;
	__u64 found;

	packet->candidates = 0;
	if (filter->lines) {
		hash = table->filter_long ? sb_hash_long(packet->high, packet->low & filter->mask, filter->seed)
					  : sb_hash(packet->high & filter->mask, filter->seed);
		packet->candidates = sb_candidates(table, packet->base, hash);
	}
	__u32 i = sb_take_length(table, &packet->candidates, 0);

	packet->length = i + 1;
	if (i >= table->count || i >= SB_MAX_LENGTHS)
		return 0;
	is_long = i < table->long_count;
	found = sb_probe6(&table->lengths[i], is_long, packet, &spill);
	return SB_RARELY(spill) ? sb_spilled6(&table->lengths[i], is_long, packet, spill) : found;
}

/* The same for the probes in loops: a call, so that the verifier need not follow it in each round. */
SB_GLOBAL __u64 sb_spill4(const struct sb_packet *packet, __u32 number, __u32 at)
{
	const struct sb_table *table = packet ? sb_table_at(packet->table) : 0;

	return table && number < SB_MAX_LENGTHS ? sb_spilled4(&table->lengths[number], packet, at) : 0;
}

SB_GLOBAL __u64 sb_spill6(const struct sb_packet *packet, __u32 number, __u32 at)
{
	const struct sb_table *table = packet ? sb_table_at(packet->table) : 0;

	if (!table || number >= SB_MAX_LENGTHS)
		return 0;
	return sb_spilled6(&table->lengths[number], number < table->long_count, packet, at);
}

/*
 * As many lengths as candidates can name are probed inline. The verifier would follow each further one through all of
 * its branches as well, so those are probed by calls of these.
 */
SB_GLOBAL __u64 sb_probe4_alone(const struct sb_packet *packet, __u32 number)
{
	const struct sb_table *table = packet ? sb_table_at(packet->table) : 0;
	__u32 spill = 0;
	__u64 found;

	if (!table || number >= SB_MAX_LENGTHS)
		return 0;
	found = sb_probe4(&table->lengths[number], packet, &spill);
	return SB_RARELY(spill) ? sb_spilled4(&table->lengths[number], packet, spill) : found;
}

SB_GLOBAL __u64 sb_probe6_alone(const struct sb_packet *packet, __u32 number)
{
	const struct sb_table *table = packet ? sb_table_at(packet->table) : 0;
	__u32 is_long, spill = 0;
	__u64 found;

	if (!table || number >= SB_MAX_LENGTHS)
		return 0;
	is_long = number < table->long_count;
	found = sb_probe6(&table->lengths[number], is_long, packet, &spill);
	return SB_RARELY(spill) ? sb_spilled6(&table->lengths[number], is_long, packet, spill) : found;
}

/* The longest prefix that covers the address, but for what the first probe has seen. */
SB_INLINE __u64 sb_next4(struct sb_packet *packet, const struct sb_table *table)
{
	__u32 next = packet->length;
	__u64 found = 0;

	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_CANDIDATES && !found; n++) {
		__u32 i = sb_take_length(table, &packet->candidates, next), spill = 0;

		if (i >= table->count || i >= SB_MAX_LENGTHS)
			return 0;
		next = i + 1;
		found = sb_probe4(&table->lengths[i], packet, &spill);
		if (SB_RARELY(spill))
			found = sb_spill4(packet, i, spill);
	}
	SB_NO_UNROLL
	for (__u32 n = 0; n < 33 && !found && next < table->count; n++)
		found = sb_probe4_alone(packet, next++);
	return found;
}

SB_INLINE __u64 sb_next6(struct sb_packet *packet, const struct sb_table *table)
{
	__u32 next = packet->length;
	__u64 found = 0;

	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_CANDIDATES && !found; n++) {
		__u32 i = sb_take_length(table, &packet->candidates, next), spill = 0;

		if (i >= table->count || i >= SB_MAX_LENGTHS)
			return 0;
		next = i + 1;
		found = sb_probe6(&table->lengths[i], i < table->long_count, packet, &spill);
		if (SB_RARELY(spill))
			found = sb_spill6(packet, i, spill);
	}
	SB_NO_UNROLL
	for (__u32 n = 0; n < SB_MAX_LENGTHS && !found && next < table->count; n++)
		found = sb_probe6_alone(packet, next++);
	return found;
}

#ifdef __cplusplus
#pragma GCC diagnostic pop
#endif
