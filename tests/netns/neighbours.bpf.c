// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Programs of other owners in the broker's neighbourhood: sk_lookup programs that pass, drop or redirect before or
// after ours, and an XDP and a TC program that look for the listener of a packet. All of them act on kPort only, so
// that a client's own lookups are left alone.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { kPort = 7000, kFamilyIpv4 = 2, kFamilyIpv6 = 10 };

// Index of both maps: 0 TCP over IPv4, 1 TCP over IPv6, 2 UDP over IPv4, 3 UDP over IPv6.
static __always_inline __u32 kind(__u32 protocol, int ipv6) {
        return (protocol == IPPROTO_UDP ? 2 : 0) + (ipv6 ? 1 : 0);
}

struct {
        __uint(type, BPF_MAP_TYPE_SOCKMAP);
        __uint(max_entries, 4);
        __type(key, __u32);
        __type(value, __u64);
} others SEC(".maps");

// What the packet programs found: the port that the listener is bound to, 0 for none.
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 4);
        __type(key, __u32);
        __type(value, __u64);
} found SEC(".maps");

static __always_inline int redirect(struct bpf_sk_lookup* ctx, __u64 flags) {
        if (ctx->local_port != kPort) {
                return SK_PASS;
        }
        __u32 key = kind(ctx->protocol, ctx->family == kFamilyIpv6);
        struct bpf_sock* sk = bpf_map_lookup_elem(&others, &key);
        if (!sk) {
                return SK_PASS;
        }
        bpf_sk_assign(ctx, sk, flags);
        bpf_sk_release(sk);
        return SK_PASS;
}

SEC("sk_lookup")
int other_pass(struct bpf_sk_lookup* ctx) {
        (void)ctx;
        return SK_PASS;
}

SEC("sk_lookup")
int other_drop(struct bpf_sk_lookup* ctx) {
        return ctx->local_port == kPort ? SK_DROP : SK_PASS;
}

SEC("sk_lookup")
int other_redirect(struct bpf_sk_lookup* ctx) {
        return redirect(ctx, 0);
}

SEC("sk_lookup")
int other_replace(struct bpf_sk_lookup* ctx) {
        return redirect(ctx, BPF_SK_LOOKUP_F_REPLACE);
}

struct packet {
        struct bpf_sock_tuple tuple;
        __u32 size;      // of the tuple: IPv4 or IPv6
        __u32 protocol;  // 0: no packet of ours
};

static __always_inline void parse_ports(struct packet* packet, __u32 protocol, void* at, void* end, __be16* source,
                                        __be16* destination) {
        if (protocol == IPPROTO_TCP) {
                struct tcphdr* tcp = at;
                // Only an opening SYN: later packets would find the connection, not the listener.
                if ((void*)(tcp + 1) > end || !tcp->syn || tcp->ack) {
                        return;
                }
                *source = tcp->source;
                *destination = tcp->dest;
        } else if (protocol == IPPROTO_UDP) {
                struct udphdr* udp = at;
                if ((void*)(udp + 1) > end) {
                        return;
                }
                *source = udp->source;
                *destination = udp->dest;
        } else {
                return;
        }
        if (*destination == bpf_htons(kPort)) {
                packet->protocol = protocol;
        }
}

static __always_inline void parse(struct packet* packet, void* at, void* end) {
        struct ethhdr* ethernet = at;
        if ((void*)(ethernet + 1) > end) {
                return;
        }
        if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
                struct iphdr* ip = (void*)(ethernet + 1);
                if ((void*)(ip + 1) > end || ip->ihl != 5) {
                        return;
                }
                packet->size = sizeof(packet->tuple.ipv4);
                packet->tuple.ipv4.saddr = ip->saddr;
                packet->tuple.ipv4.daddr = ip->daddr;
                parse_ports(packet, ip->protocol, ip + 1, end, &packet->tuple.ipv4.sport, &packet->tuple.ipv4.dport);
        } else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
                struct ipv6hdr* ip = (void*)(ethernet + 1);
                if ((void*)(ip + 1) > end) {
                        return;
                }
                packet->size = sizeof(packet->tuple.ipv6);
                __builtin_memcpy(packet->tuple.ipv6.saddr, &ip->saddr, sizeof(ip->saddr));
                __builtin_memcpy(packet->tuple.ipv6.daddr, &ip->daddr, sizeof(ip->daddr));
                parse_ports(packet, ip->nexthdr, ip + 1, end, &packet->tuple.ipv6.sport, &packet->tuple.ipv6.dport);
        }
}

static __always_inline void find(void* ctx, void* data, void* end) {
        struct packet packet = {};
        parse(&packet, data, end);
        if (packet.protocol == 0) {
                return;
        }
        struct bpf_sock* sk = packet.protocol == IPPROTO_TCP
                                      ? bpf_sk_lookup_tcp(ctx, &packet.tuple, packet.size, BPF_F_CURRENT_NETNS, 0)
                                      : bpf_sk_lookup_udp(ctx, &packet.tuple, packet.size, BPF_F_CURRENT_NETNS, 0);
        __u64 port = 0;
        if (sk) {
                port = sk->src_port;
                bpf_sk_release(sk);
        }
        __u32 key = kind(packet.protocol, packet.size == sizeof(packet.tuple.ipv6));
        bpf_map_update_elem(&found, &key, &port, BPF_ANY);
}

SEC("tc")
int find_tc(struct __sk_buff* skb) {
        bpf_skb_pull_data(skb, 0);
        find(skb, (void*)(long)skb->data, (void*)(long)skb->data_end);
        return TC_ACT_OK;
}

SEC("xdp")
int find_xdp(struct xdp_md* xdp) {
        find(xdp, (void*)(long)xdp->data, (void*)(long)xdp->data_end);
        return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
