// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The bytes that the dispatch program and the broker share: the rule memory (arena and tables), the services with
// their targets, the records about sockets and the counters. C and C++. Whoever changes a size, an offset or a meaning
// here raises SB_LAYOUT: pinned maps outlive the broker that made them. docs/dispatch.md tells how it hangs together.
#pragma once

#include <linux/types.h>

#define SB_MAGIC 0x72656b6f72626b73ULL /* first in the meta map, in every layout there will ever be */
#define SB_LAYOUT 10U		       /* second, likewise */

enum {
	SB_LINE_BYTES = 64,
	SB_LINE_WORDS = 16,
	SB_PRESENT_WORDS = 1024, /* of 64 bits */
	SB_MAX_LENGTHS = 129,	 /* prefix lengths of IPv6: 0 to 128 */
	SB_CONDITION_WORD = 8,	 /* the last word of a line in which a rule with a condition may start */
	SB_MAX_STEPS = 1024,	 /* rules that may be tried for one packet; the compiler refuses more */
	SB_DEPTH = 4,		 /* sockets of a service that a record names, for one protocol and family */
	SB_CHAIN = 15,		 /* and that each record after it names, of a service that shares */
	SB_MAX_SHARED = 256,	 /* sockets among which one protocol and family of a service is spread */
	SB_CHAINED_RECORDS = 18, /* for so many */
	SB_SHARE_TRIES = 8,	 /* sockets that a flow tries in its own order before any that is left */
	SB_UNIT_BYTES = 256,
	SB_NAME_BYTES = 48,
};

/*
 * A reference names a struct sb_rule in the arena: the line, from the start of the generation, times SB_LINE_WORDS,
 * plus the word in the line. 0: none; the first line of a generation is left empty.
 */
enum {
	SB_RULE_SERVICE = 0x000fffff, /* id of the service; ids reach 2^20 - 1 */
	SB_RULE_USED = 1 << 20,	      /* the place is taken; set in every rule */
	SB_RULE_OVERFLOW = 1 << 21,   /* in the first place of a line: keys of it stand in their second line */
	SB_RULE_PORTS = 1 << 22,     /* not a rule but a table of port intervals: first + 1 of them, from line `next` */
	SB_RULE_CONDITION = 1 << 23, /* a struct sb_condition follows */
	SB_RULE_SHORT = 1 << 24,     /* of a prefix too short to cover loopback addresses */
	SB_RULE_ABSENT_SHIFT = 25,
	SB_RULE_ABSENT = 3 << SB_RULE_ABSENT_SHIFT,
	SB_RULE_COUNTED = 1 << 27, /* has a condition, maybe an empty one, and behind it the index of its own counter */
};

enum { SB_ABSENT_REFUSE = 0, SB_ABSENT_PASS = 1, SB_ABSENT_NEXT = 2 };

struct sb_rule {
	__u16 first; /* ports, host order; first > last matches none and goes on to `next` */
	__u16 last;
	__u32 flags;
	__u32 next; /* tried when this one does not match or has no socket and says so */
};

/* Follows a rule in the same line; IPv4 uses one word of the source, the others may be another rule's. */
struct sb_condition {
	__u32 where;	 /* ifindex << 8 | length of the source prefix; 0: any */
	__u32 source[4]; /* network order, masked */
};

/* One cache line: a bucket of one of three shapes, rules outside buckets, or a piece of a table of port intervals. */
union sb_line {
	__u32 words[SB_LINE_WORDS];
	struct {
		__u32 key[4];
		struct sb_rule rule[4];
	} v4;
	struct { /* IPv6, up to /64 */
		__u64 key[3];
		struct sb_rule rule[3];
		__u32 unused;
	} v6;
	struct { /* IPv6, longer */
		__u64 key[2][2];
		struct sb_rule rule[2];
		__u32 unused[2];
	} v6_long;
	__u16 starts[SB_LINE_BYTES / 2]; /* of a port table: first port of each interval, ascending, the first is 0 */
	__u32 refs[SB_LINE_BYTES / 4];	 /* what to try for it, in the lines after those of the starts */
};

/* The region of buckets of one prefix length. */
struct sb_length {
	__u64 mask; /* of the half of the address in which the prefix ends; the other counts whole or not at all */
	__u64 seed;
	__u32 first; /* line from the start of the generation */
	__u32 lines;
};

/*
 * Candidates are the lengths that may have an entry for an address, longest first: five codes of six bits, the lowest
 * first. A code is the number of a length plus one; SB_CANDIDATE_END: only `always` and what follows it; 0: whatever
 * follows the one before, from the first on if there is none. So 0 means that nothing is known. As in a Bloom filter
 * there are false positives, never false negatives.
 */
enum {
	SB_CANDIDATE_BITS = 6,
	SB_CANDIDATES = 5, /* in a word */
	SB_CANDIDATE_END = 63,
};

/* One for each generation, protocol and family. */
struct sb_table {
	__u32 count;		 /* lengths in use, longest first */
	__u32 long_count;	 /* of these longer than 64 bits */
	__u32 always;		 /* this length and all after it are never among the candidates */
	__u32 filter_long;	 /* more than 64 bits of the address choose the candidates */
	struct sb_length filter; /* lines of candidates, by a hash of the first bits of an address; no lines: none */
	struct sb_length lengths[SB_MAX_LENGTHS];
	__u64 present[SB_PRESENT_WORDS]; /* bit n: a prefix covers some address whose first 16 bits are n */
};

struct sb_header {
	__u64 magic;
	__u32 layout;
	__u32 generation; /* 0 or 1: the one switch of all rules */
	__u32 lines;	  /* arena lines of one generation */
	__u32 bindings;	  /* capacity as it was asked for */
	__u32 services;
	__u32 sockets;
	__u64 secret; /* random; nobody outside can choose which socket of a service that shares a flow goes to */
	__u64 flow_secret[2]; /* likewise, for where flows and replies stand in their tables */
};

enum { SB_NEWEST_REMEMBERED = 0xffff };

/*
 * The record is the truth, and the store of its index the one switch of a service's sockets. `newest` is a copy of
 * its first slots, 16 bits each, [SB_WHICH()], for the lookup that needs no more. It is 0 while the record changes,
 * and where the record says more than that: sockets that share, a choice left to the kernel, a slot of over 16 bits.
 * The two of UDP are SB_NEWEST_REMEMBERED where flows stay or the asked address is noted.
 */
struct sb_service {
	__u64 newest;
	__u32 record;  /* index into records */
	__u32 crossed; /* of UdpReply=original: a client asked another address before it had its answer */
};

/* In the first slot of each protocol and family, beside its number. */
enum {
	SB_SLOT_NUMBER = 0x07ffffff,
	SB_SLOT_REPLY = 1 << 27,     /* of UDP: the address that a client asked is noted, for the answer */
	SB_SLOT_CHAIN = 1 << 28,     /* not a slot but the first of the records in which the slots stand */
	SB_SLOT_SHARE = 1 << 29,     /* flows are spread over all of them */
	SB_SLOT_REUSEPORT = 1 << 30, /* within the socket's SO_REUSEPORT group the kernel chooses */
	SB_SLOT_STAY = 1U << 31,     /* of UDP: a flow goes on to the socket that has served it */
};

/* Never changed while a service names it. */
union sb_record {
	__u32 slot[4][SB_DEPTH]; /* [SB_WHICH()], in the order in which they are tried; 0: none */
	struct {		 /* of a chain: slots, and the next of these records, 0 for none */
		__u32 slot[SB_CHAIN];
		__u32 next;
	} chain;
};

/*
 * Of each slot. A slot that is taken anew gets another generation, so that what a flow remembers of the socket that was
 * there does not count for the next one.
 */
struct sb_slot {
	__u32 service; /* 0: none */
	__u32 generation;
};

/*
 * A flow of UDP that stays with its socket. An entry is of 64 bits, from the lowest: slot, generation of the slot, time
 * of the last refresh, protected, tag. Times are of CLOCK_MONOTONIC, in units of 2^30 ns. An empty one is 0.
 *
 * A flow has two sets: a near one, of the first SB_FLOW_NEAR lines, and a far one, of the others. It stands in the far
 * one only while the near one is full. So what is read for each datagram is small as long as flows are few: few pages,
 * and lines that the processor's own cache has room for.
 */
enum {
	SB_FLOW_LINES = 65536,
	SB_FLOW_NEAR = 4096,
	SB_FLOW_WAYS = 8,
	SB_FLOW_SLOT = 0xffff,
	SB_FLOW_GENERATION_SHIFT = 16,
	SB_FLOW_GENERATIONS = 0x3ff,
	SB_FLOW_TIME_SHIFT = 26,
	SB_FLOW_TIMES = 0xfff,
	SB_FLOW_PROTECTED_SHIFT = 38,
	SB_FLOW_TAG_SHIFT = 39,
	SB_FLOW_CLOCK = 30,  /* a unit of time is so many bits of nanoseconds: 1.07 s */
	SB_FLOW_REFRESH = 4, /* units after which a datagram is noted anew */
	SB_FLOW_KEEP = 30,   /* for so long a protected entry gives way to nobody */
	SB_FLOW_IDLE = 112,  /* two minutes; a flow that was silent for longer is a new one */
};
#define SB_FLOW_PROTECTED (1ULL << SB_FLOW_PROTECTED_SHIFT)

struct sb_flow_line {
	__u64 entry[SB_FLOW_WAYS];
};

/*
 * UdpReply=original: which address a client asked of a socket, for answers to leave from it. A table of sets; an entry
 * is found by its tag, a hash of the socket's cookie and the client's address and port. An empty one is 0. What IPv4
 * needs is in the first cache line of a set. Nothing here is written for a question of a client that is known and asks
 * the address that it asked before: so the two processors that take questions and send answers both have the line.
 */
enum {
	SB_REPLY_LINES = 7680,
	SB_REPLY_WAYS = 4,
	SB_REPLY_SPEAKS = 1, /* of `version`: the client has asked again after an answer, as one that has a session */
	SB_REPLY_CLOCK = 10, /* a unit of time is so many bits of nanoseconds: 1.02 us */
	SB_REPLY_SKEW = 1 << 22,  /* 4.3 s: by so much no processor's time is behind that of another */
	SB_REPLY_KEEP = 31250000, /* 32 s: for so long the entry of a client that speaks gives way to nobody */
	SB_REPLY_LATELY = 97656,  /* 100 ms: for so long an answered one does not give way before one that waits */
	SB_REPLY_SPEAKERS = 3,	  /* of a set, so that others have a place */
	SB_REPLY_QUIET = 244140,  /* 250 ms: for so long each of them gives way to nobody, afterwards two do */
};
#define SB_REPLY_BUSY 1ULL /* instead of a tag: the entry is being written */

struct sb_reply_line {
	__u64 tag[SB_REPLY_WAYS];
	__u32 address[SB_REPLY_WAYS]; /* its first word, which is all of IPv4 */
	__u32 version[SB_REPLY_WAYS]; /* SB_REPLY_SPEAKS; the rest changes whenever the address does */
	__u32 others[SB_REPLY_WAYS][3];
	__u32 unused[SB_REPLY_WAYS];
};

/*
 * Beside a line of `replies`, in `questions` when each client asked last, never 0 then, and in `answered` when it was
 * answered last: whoever has asked later than that waits. Only who takes questions writes the one, and only who answers
 * the other, but for a time that has turned round, so that on two processors neither line goes to and fro.
 */
struct sb_reply_times {
	__u32 at[SB_REPLY_WAYS];
};

/* Of a cgroup in which the programs of bpf/answer.bpf.c are: whose it is, and which UDP ports its unit may bind. */
enum { SB_UNIT_PORTS = 32 };

struct sb_unit {
	char unit[SB_UNIT_BYTES]; /* empty: none that the broker knows of any more */
	__u16 port[SB_UNIT_PORTS];
};

/* fd73:6f63:6b62::/48: addresses of sockets of services, which no interface has. */
#define SB_PLACES 0xfd736f636b62ULL

struct sb_counters {
	__u64 lookups;
	__u64 assigned;
	__u64 no_socket;
	__u64 error_protocol;
	__u64 error_family;
	__u64 error_state;
	__u64 error_exists;
	__u64 error_other;
};

/* Of one binding, for services that want it so. */
struct sb_binding_counter {
	__u64 lookups;	 /* the binding decided */
	__u64 no_socket; /* and its service had no socket */
};

/* About the socket in a slot; read and written by the broker alone. */
struct sb_registrant {
	__u64 cookie;
	__s64 since_usec;
	__u32 service; /* 0: no socket on record */
	__u32 pid;
	__u32 uid;
	__u32 gid;
	__u8 protocol;
	__u8 family;
	__u8 serves; /* 1: IPv4, 2: IPv6 */
	__u8 bound_family;
	__u16 bound_port;
	__u16 unused;
	__u8 bound_address[16];
	__s64 registered_usec; /* CLOCK_MONOTONIC: pins do not outlive a boot */
	__s64 gone_usec; /* CLOCK_MONOTONIC: since when its service is gone and the broker holds it; 0: it is not */
	__s64 hold_until_usec; /* CLOCK_MONOTONIC: a stop on purpose until then counts as a crash; 0: it does not */
	__u64 user_name;       /* hash of the name of User= that admitted it; 0: a number, or none */
	__u64 group_name;      /* of Group= likewise */
	char unit[SB_UNIT_BYTES];
};

/* Of a service; empty: the id is free. */
struct sb_name {
	char text[SB_NAME_BYTES];
};

/* Protocol (0 TCP, 1 UDP) and family (0 IPv4, 1 IPv6) as one index. */
#define SB_WHICH(protocol, family) ((protocol)*2 + (family))

#ifdef __cplusplus
#define SB_STATIC_ASSERT static_assert
#else
#define SB_STATIC_ASSERT _Static_assert
#endif
SB_STATIC_ASSERT(sizeof(struct sb_rule) == 12, "rule");
SB_STATIC_ASSERT(sizeof(struct sb_condition) == 20, "condition");
SB_STATIC_ASSERT(SB_CONDITION_WORD * 4UL + sizeof(struct sb_rule) + sizeof(struct sb_condition) <= SB_LINE_BYTES,
		 "fits");
SB_STATIC_ASSERT(sizeof(union sb_line) == SB_LINE_BYTES, "line");
SB_STATIC_ASSERT(sizeof(struct sb_length) == 24, "length");
SB_STATIC_ASSERT(sizeof(struct sb_table) % SB_LINE_BYTES == 0, "what the first probe needs is the first line of each");
SB_STATIC_ASSERT(__builtin_offsetof(struct sb_table, lengths[1]) == SB_LINE_BYTES, "first length");
SB_STATIC_ASSERT(sizeof(struct sb_header) == 56, "header");
SB_STATIC_ASSERT(sizeof(struct sb_service) == 16, "service");
SB_STATIC_ASSERT(sizeof(union sb_record) == 64, "record");
SB_STATIC_ASSERT(SB_CHAINED_RECORDS *SB_CHAIN >= SB_MAX_SHARED, "chain");
SB_STATIC_ASSERT(sizeof(struct sb_slot) == 8, "slot");
SB_STATIC_ASSERT(sizeof(struct sb_flow_line) == SB_LINE_BYTES, "a set of flows");
SB_STATIC_ASSERT(sizeof(struct sb_reply_line) == 2UL * SB_LINE_BYTES, "a set of replies");
SB_STATIC_ASSERT(sizeof(struct sb_unit) == 320, "unit");
SB_STATIC_ASSERT(sizeof(struct sb_counters) == 64, "counters");
SB_STATIC_ASSERT(sizeof(struct sb_binding_counter) == 16, "binding counter");
SB_STATIC_ASSERT(sizeof(struct sb_registrant) == 352, "registrant");

#define SB_AF_INET 2
#define SB_AF_INET6 10
#define SB_TCP 6
#define SB_UDP 17

#define SB_INLINE static inline __attribute__((always_inline))
#ifdef __bpf__
#define SB_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define SB_NO_UNROLL
#endif

/* Two words of an address, as they lie in memory, to half a key: the same on both sides, whatever the byte order. */
SB_INLINE __u64 sb_half(__u32 first, __u32 second)
{
	__u64 wide = second;

	return wide << 32 | first;
}

/* Multiply and shift: 32 bits, of which sb_scale() uses the upper ones. IPv4 keys and those up to /64 have low = 0. */
SB_INLINE __u32 sb_hash(__u64 high, __u64 seed)
{
	__u64 product = (high ^ (high >> 29)) * seed;

	return product >> 32;
}

SB_INLINE __u32 sb_hash_long(__u64 high, __u64 low, __u64 seed)
{
	__u64 mixed = high * seed;

	return sb_hash((mixed ^ (mixed >> 32)) + low, seed);
}

/* From the first place of a key to its second. */
SB_INLINE __u32 sb_second(__u32 hash)
{
	return hash * 0x9e3779b1U;
}

SB_INLINE __u32 sb_scale(__u32 hash, __u32 lines)
{
	__u64 product = hash;

	return product * lines >> 32;
}

/* One more word of what makes a flow: addresses and ports as they stand in the lookup, starting from the secret. */
SB_INLINE __u64 sb_flow(__u64 flow, __u64 word)
{
	flow = (flow ^ word) * 0x9fb21c651e98df25ULL;
	return flow ^ (flow >> 29);
}

/*
 * How much a slot is worth to a flow: it goes to the socket whose slot is worth most (rendezvous hashing, Thaler and
 * Ravishankar 1998), so it moves only when that one goes or one that is worth more comes. No two are equal.
 */
SB_INLINE __u64 sb_worth(__u64 flow, __u32 slot)
{
	__u64 mixed = (flow ^ (slot * 0x9e3779b97f4a7c15ULL)) * 0xd6e8feb86659fd93ULL;

	mixed = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93ULL;
	return mixed >> 28 << 28 | slot;
}
