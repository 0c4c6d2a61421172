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
 * The address that the client asked, into `address`. Its question is answered by that: the next one may be to another
 * address. 0: it asked none that is known.
 */
static __always_inline int take_asked(__u64 tag, __u32 family, __u32 *address)
{
	__u32 at = sb_reply_line_of(tag);
	struct sb_reply_line *line = bpf_map_lookup_elem(&replies, &at);

	if (!line)
		return 0;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < SB_REPLY_WAYS; i++) {
		__u32 asked;

		if (READ_ONCE(line->tag[i]) != tag)
			continue;
		address[0] = READ_ONCE(line->address[i]);
		if (family == SB_AF_INET6) {
			address[1] = READ_ONCE(line->others[i][0]);
			address[2] = READ_ONCE(line->others[i][1]);
			address[3] = READ_ONCE(line->others[i][2]);
		}
		asked = READ_ONCE(line->asked[i]);
		/* Another one's by now, or being written? */
		if (__sync_val_compare_and_swap(&line->tag[i], tag, tag) != tag)
			return 0;
		if (asked & SB_REPLY_WAITS)
			*(volatile __u32 *)&line->asked[i] = asked & ~(__u32)SB_REPLY_WAITS;
		return 1;
	}
	return 0;
}

/* A source other than the socket's own was given with the datagram (IP_PKTINFO): that is the program's matter. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sb_sip state;
	__u32 address;

	if (!sk || sk->state == CONNECTED || ctx->msg_src_ip4 != sk->src_ip4)
		return AS_IT_IS;
	sb_reply_begin(&state, bpf_get_socket_cookie(ctx), SB_AF_INET, (__u16)ctx->user_port, ctx->user_ip4);
	if (take_asked(sb_reply_end(&state), SB_AF_INET, &address))
		ctx->msg_src_ip4 = address;
	return AS_IT_IS;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sb_sip state;
	__u32 address[4];

	if (!sk || sk->state == CONNECTED)
		return AS_IT_IS;
	if (ctx->msg_src_ip6[0] != sk->src_ip6[0] || ctx->msg_src_ip6[1] != sk->src_ip6[1] ||
	    ctx->msg_src_ip6[2] != sk->src_ip6[2] || ctx->msg_src_ip6[3] != sk->src_ip6[3])
		return AS_IT_IS;
	sb_reply_begin(&state, bpf_get_socket_cookie(ctx), SB_AF_INET6, (__u16)ctx->user_port, ctx->user_ip6[0]);
	sb_reply_rest(&state, ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	if (take_asked(sb_reply_end(&state), SB_AF_INET6, address)) {
		ctx->msg_src_ip6[0] = address[0];
		ctx->msg_src_ip6[1] = address[1];
		ctx->msg_src_ip6[2] = address[2];
		ctx->msg_src_ip6[3] = address[3];
	}
	return AS_IT_IS;
}

static __always_inline int verdict_on(struct bpf_sock_addr *ctx)
{
	const struct sb_unit *unit = bpf_get_local_storage(&units, 0);
	__u16 port = bpf_ntohs(ctx->user_port);

	if (port == 0 || ctx->type != DATAGRAM || ctx->protocol != SB_UDP)
		return AS_IT_IS;
#pragma clang loop unroll(disable)
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
