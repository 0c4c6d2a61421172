/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rules of a prefix with many port ranges: disjoint intervals of ports, sorted, each with a reference. Lines of 32
 * starts are the leaves of a tree in which each line above names what 32 lines below begin with; the references follow.
 * 285 ports take two lines and a reference.
 */
#pragma once

#include "bpf/find.h"
#include "bpf/layout.h"

/* 1 if this start is below `end`, else 0. No branch, which nobody could predict. */
SB_INLINE __u32 sb_below(__u32 start, __u32 end)
{
	start = (start - end) >> 31;
	barrier_var(start); /* or clang makes a branch of it, and the verifier follows both ways */
	return start;
}

/* Of the 32 starts in a line the last at or before the port. Two rounds of comparisons that do not wait for each other.
 */
SB_INLINE __u32 sb_last_begun(const union sb_line *line, __u32 port)
{
	const __u16 *starts = line->starts;
	__u32 end = port + 1;
	__u32 at = sb_below(starts[4], end) + sb_below(starts[8], end) + sb_below(starts[12], end) +
		   sb_below(starts[16], end) + sb_below(starts[20], end) + sb_below(starts[24], end) +
		   sb_below(starts[28], end);

	at *= 4;
	return at + sb_below(starts[at + 1], end) + sb_below(starts[at + 2], end) + sb_below(starts[at + 3], end);
}

/* From line `at` of a level to the line of the level below, which has `below` of them. */
SB_INLINE __u32 sb_descend(__u32 level, __u32 at, __u32 below, __u32 port)
{
	const union sb_line *line = sb_line_at(level + at);

	if (!line)
		return 0;
	at = at * 32 + sb_last_begun(line, port);
	return at < below ? at : below - 1; /* what is left of a level's last line holds 65535 */
}

/* The reference for the port in a table of `count` intervals that begins in this line. */
SB_INLINE __u32 sb_search_ports(__u32 first_line, __u32 count, __u32 port)
{
	__u32 leaves = (count + 31) / 32, middle = (leaves + 31) / 32, upper = (middle + 31) / 32;
	__u32 level = first_line, at = 0;
	const union sb_line *line;

	if (SB_RARELY(upper > 1)) {
		at = sb_descend(level, at, upper, port);
		level++;
	}
	if (SB_RARELY(middle > 1)) {
		at = sb_descend(level, at, middle, port);
		level += upper;
	}
	if (leaves > 1) {
		at = sb_descend(level, at, leaves, port);
		level += middle;
	}
	at = sb_descend(level, at, count, port);
	line = sb_line_at(level + leaves + at / 16);
	return line ? line->refs[at % 16] : 0;
}
