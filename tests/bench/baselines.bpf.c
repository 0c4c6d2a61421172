// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the dispatch program is measured against: nothing, one fixed socket (the floor), and the common design of two
 * lookups in a longest-prefix trie keyed by protocol, port and prefix: with the port and again with port 0, the longer
 * prefix wins. It is spared what a real one has besides: counters, sources, reserve sockets. A trie for each family.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define READ_ONCE(x) (*(const volatile typeof(x)*)&(x))

struct key4 {
        __u32 length;
        __u16 protocol;
        __u16 port;
        __u32 address;
};

struct key6 {
        __u32 length;
        __u16 protocol;
        __u16 port;
        __u32 address[4];
};

struct value {
        __u32 slot;
        __u32 length;
};

struct {
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, 1);
        __type(key, struct key4);
        __type(value, struct value);
} trie4 SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __uint(max_entries, 1);
        __type(key, struct key6);
        __type(value, struct value);
} trie6 SEC(".maps");

/* Slot: the service; 0 is the floor's. */
struct {
        __uint(type, BPF_MAP_TYPE_SOCKMAP);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u64);
} bench_sockets SEC(".maps");

static __always_inline int assign(struct bpf_sk_lookup* ctx, __u32 slot) {
        struct bpf_sock* sk = bpf_map_lookup_elem(&bench_sockets, &slot);
        long error;

        if (!sk)
                return SK_DROP;
        error = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
        bpf_sk_release(sk);
        return error ? SK_DROP : SK_PASS;
}

SEC("sk_lookup")
int empty(struct bpf_sk_lookup* ctx) {
        (void)ctx;
        return SK_PASS;
}

SEC("sk_lookup")
int one_socket(struct bpf_sk_lookup* ctx) {
        return assign(ctx, 0);
}

static __always_inline int choose(struct bpf_sk_lookup* ctx, const struct value* exact, const struct value* any) {
        if (exact && (!any || exact->length >= any->length))
                return assign(ctx, exact->slot);
        return any ? assign(ctx, any->slot) : SK_PASS;
}

SEC("sk_lookup")
int two_lpm(struct bpf_sk_lookup* ctx) {
        if (ctx->family == 2) {
                struct key4 key = {
                        .length = 64, .protocol = ctx->protocol, .port = ctx->local_port, .address = ctx->local_ip4};
                const struct value* exact = bpf_map_lookup_elem(&trie4, &key);

                key.port = 0;
                return choose(ctx, exact, bpf_map_lookup_elem(&trie4, &key));
        }
        struct key6 key = {.length = 160,
                           .protocol = ctx->protocol,
                           .port = ctx->local_port,
                           .address = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]}};
        const struct value* exact = bpf_map_lookup_elem(&trie6, &key);

        key.port = 0;
        return choose(ctx, exact, bpf_map_lookup_elem(&trie6, &key));
}

char _license[] SEC("license") = "Dual BSD/GPL";
