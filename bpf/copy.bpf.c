// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Copies sockets from one sockmap to another of another size, run by BPF_PROG_TEST_RUN and never attached: user space
 * has no descriptor of them. The slot comes as the client's address.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/layout.h"

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} before SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} after SEC(".maps");

long error; /* of the last copy */

SEC("sk_lookup")
int copy(struct bpf_sk_lookup *ctx)
{
	__u32 slot = ctx->remote_ip4;
	struct bpf_sock *sk = bpf_map_lookup_elem(&before, &slot);

	error = 0;
	if (sk) {
		error = bpf_map_update_elem(&after, &slot, sk, BPF_ANY);
		bpf_sk_release(sk);
	}
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
