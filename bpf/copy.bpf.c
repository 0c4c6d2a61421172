// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Copies a socket from one sockmap to another, run by BPF_PROG_TEST_RUN and never attached: so user space needs no
 * descriptor of it, and takes no lock that its owner could keep. Where from comes as the client's address, where to as
 * the local one.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
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
	__u32 from = ctx->remote_ip4, to = ctx->local_ip4;
	struct bpf_sock *sk = bpf_map_lookup_elem(&before, &from);

	error = -ENOENT;
	if (sk) {
		error = bpf_map_update_elem(&after, &to, sk, BPF_ANY);
		bpf_sk_release(sk);
	}
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
