// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * UdpReply=original: what runs in the cgroup of a unit. An answer over UDP leaves from the address that its client
 * asked, as dispatch has noted it, and the unit may bind the UDP ports that policy grants it on loopback addresses
 * without CAP_NET_BIND_SERVICE. The broker attaches these to the units that policy admits and to no others. They never
 * refuse anything: what they have nothing to say of goes on as it would without them.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"
#include "bpf/read_once.h"
#include "bpf/replies.h"
#include "bpf/shared_maps.h"

enum {
	AS_IT_IS = 1,
	WITHOUT_CAPABILITY = 3, /* 1, and BPF_RET_BIND_NO_CAP_NET_BIND_SERVICE of the kernel's include/linux/bpf.h */
	CONNECTED = 1,		/* TCP_ESTABLISHED, of UDP too */
	DATAGRAM = 2,		/* SOCK_DGRAM */
};

/*
 * What is read by way of the result is read after `value`, on processors too that do not read in order: they all keep
 * to that where the one gives the address of the other. An atomic would do it as well, and pass the line to and fro.
 */
static __always_inline const struct sb_reply_line *after(const struct sb_reply_line *line, __u64 value)
{
	asm volatile("%0 &= 0" : "+r"(value));
	return (const struct sb_reply_line *)((const char *)line + value);
}

struct asked {
	__u32 address[4];
	__u32 family;
};

enum { NOT_KNOWN = 0, KNOWN = 1, AGAIN = 2, TRIES = 64 };

/* AGAIN: it was written meanwhile. Verified once, for all arguments. */
__attribute__((noinline)) int try_asked(__u64 tag, struct asked *to)
{
	__u32 at = sb_reply_line_of(tag);
	const struct sb_reply_line *line = bpf_map_lookup_elem(&replies, &at);
	struct sb_reply_times *last = bpf_map_lookup_elem(&answered, &at);
	__u32 now = sb_reply_now(), way, version;
	__u64 found, tags[SB_REPLY_WAYS];

	if (!line || !last || !to)
		return NOT_KNOWN;
	sb_reply_tags(line, tags);
	way = sb_reply_way(tags, tag);
	barrier_var(way); /* the verifier wants the check and the use in one register */
	if (way >= SB_REPLY_WAYS)
		return sb_reply_way(tags, SB_REPLY_BUSY) < SB_REPLY_WAYS ? AGAIN : NOT_KNOWN;
	version = READ_ONCE(line->version[way]);
	line = after(line, version);
	found = READ_ONCE(line->tag[way]); /* of a version that is new this is not the tag of before */
	line = after(line, found);
	if (found != tag)
		return AGAIN;
	to->address[0] = READ_ONCE(line->address[way]);
	found = to->address[0];
	if (to->family == SB_AF_INET6) {
		to->address[1] = READ_ONCE(line->others[way][0]);
		to->address[2] = READ_ONCE(line->others[way][1]);
		to->address[3] = READ_ONCE(line->others[way][2]);
		found |= to->address[1] | to->address[2] | to->address[3];
	}
	line = after(line, found);
	found = READ_ONCE(line->tag[way]);
	line = after(line, found);
	if (found != tag || READ_ONCE(line->version[way]) != version)
		return AGAIN;
	WRITE_ONCE(last->at[way], now);
	return KNOWN;
}

/*
 * The address that the client asked. Its question is answered by that: the next one may be to another address. 0: it
 * asked none that is known.
 */
static __always_inline int take_asked(__u64 tag, struct asked *to)
{
	SB_NO_UNROLL
	for (__u32 i = 0; i < TRIES; i++) {
		int result = try_asked(tag, to);

		if (result != AGAIN)
			return result;
	}
	return NOT_KNOWN;
}

/* A source other than the socket's own was given with the datagram (IP_PKTINFO): that is the program's matter. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct asked asked = {.family = SB_AF_INET};
	__u64 words[SB_REPLY_WORDS4];

	if (!sk || sk->state == CONNECTED || ctx->msg_src_ip4 != sk->src_ip4)
		return AS_IT_IS;
	words[0] = bpf_get_socket_cookie(ctx);
	words[1] = sb_reply_client(SB_AF_INET, (__u16)ctx->user_port, ctx->user_ip4);
	if (take_asked(sb_reply_tag_of(words, SB_REPLY_WORDS4), &asked))
		ctx->msg_src_ip4 = asked.address[0];
	return AS_IT_IS;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct asked asked = {.family = SB_AF_INET6};
	__u64 words[SB_REPLY_WORDS6];

	if (!sk || sk->state == CONNECTED)
		return AS_IT_IS;
	if (ctx->msg_src_ip6[0] != sk->src_ip6[0] || ctx->msg_src_ip6[1] != sk->src_ip6[1] ||
	    ctx->msg_src_ip6[2] != sk->src_ip6[2] || ctx->msg_src_ip6[3] != sk->src_ip6[3])
		return AS_IT_IS;
	words[0] = bpf_get_socket_cookie(ctx);
	words[1] = sb_reply_client(SB_AF_INET6, (__u16)ctx->user_port, ctx->user_ip6[0]);
	words[2] = sb_half(ctx->user_ip6[1], ctx->user_ip6[2]);
	words[3] = ctx->user_ip6[3];
	if (take_asked(sb_reply_tag_of(words, SB_REPLY_WORDS6), &asked)) {
		ctx->msg_src_ip6[0] = asked.address[0];
		ctx->msg_src_ip6[1] = asked.address[1];
		ctx->msg_src_ip6[2] = asked.address[2];
		ctx->msg_src_ip6[3] = asked.address[3];
	}
	return AS_IT_IS;
}

static __always_inline int verdict_on(struct bpf_sock_addr *ctx)
{
	const struct sb_unit *unit = bpf_get_local_storage(&units, 0);
	__u16 port = bpf_ntohs(ctx->user_port);

	if (port == 0 || ctx->type != DATAGRAM || ctx->protocol != SB_UDP)
		return AS_IT_IS;
	SB_NO_UNROLL
	for (__u32 i = 0; i < SB_UNIT_PORTS; i++) {
		if (READ_ONCE(unit->port[i]) == port)
			return WITHOUT_CAPABILITY;
	}
	return AS_IT_IS;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	if ((ctx->user_ip4 & bpf_htonl(0xff000000)) != bpf_htonl(0x7f000000))
		return AS_IT_IS;
	return verdict_on(ctx);
}

/* IPv6 has the one loopback address: so an address of SB_PLACES, which is no interface's, is one for services too. */
SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	__u32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];
	int loopback = a == 0 && b == 0 && c == 0 && d == bpf_htonl(1);
	int mapped = a == 0 && b == 0 && c == bpf_htonl(0xffff) && (d & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	int place =
		a == bpf_htonl(SB_PLACES >> 16) && (b & bpf_htonl(0xffff0000)) == bpf_htonl((SB_PLACES & 0xffff) << 16);

	if (!loopback && !mapped && !place)
		return AS_IT_IS;
	return verdict_on(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
