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
#include "bpf/reply_maps.h"

enum {
	AS_IT_IS = 1,
	WITHOUT_CAPABILITY = 3, /* 1, and BPF_RET_BIND_NO_CAP_NET_BIND_SERVICE of the kernel's include/linux/bpf.h */
	CONNECTED = 1,		/* TCP_ESTABLISHED, of UDP too */
	DATAGRAM = 2,		/* SOCK_DGRAM */
};

/* The answer is on its way: the next question may be to another address. */
static __always_inline struct sb_asked *take_asked(const struct sb_client *client)
{
	struct sb_asked *asked = bpf_map_lookup_elem(&replies, client);

	if (asked && READ_ONCE(asked->waits))
		asked->waits = 0;
	return asked;
}

/* A source other than the socket's own was given with the datagram (IP_PKTINFO): that is the program's matter. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sb_client client = {};
	const struct sb_asked *asked;

	if (!sk || sk->state == CONNECTED || ctx->msg_src_ip4 != sk->src_ip4)
		return AS_IT_IS;
	client.cookie = bpf_get_socket_cookie(ctx);
	client.family = SB_AF_INET; /* of the addresses; the socket may be one for both families */
	client.port = ctx->user_port;
	client.address[0] = ctx->user_ip4;
	asked = take_asked(&client);
	if (asked)
		ctx->msg_src_ip4 = READ_ONCE(asked->address[0]);
	return AS_IT_IS;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sb_client client = {};
	const struct sb_asked *asked;

	if (!sk || sk->state == CONNECTED)
		return AS_IT_IS;
	if (ctx->msg_src_ip6[0] != sk->src_ip6[0] || ctx->msg_src_ip6[1] != sk->src_ip6[1] ||
	    ctx->msg_src_ip6[2] != sk->src_ip6[2] || ctx->msg_src_ip6[3] != sk->src_ip6[3])
		return AS_IT_IS;
	client.cookie = bpf_get_socket_cookie(ctx);
	client.family = SB_AF_INET6;
	client.port = ctx->user_port;
	client.address[0] = ctx->user_ip6[0];
	client.address[1] = ctx->user_ip6[1];
	client.address[2] = ctx->user_ip6[2];
	client.address[3] = ctx->user_ip6[3];
	asked = take_asked(&client);
	if (asked) {
		ctx->msg_src_ip6[0] = asked->address[0];
		ctx->msg_src_ip6[1] = asked->address[1];
		ctx->msg_src_ip6[2] = asked->address[2];
		ctx->msg_src_ip6[3] = asked->address[3];
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
