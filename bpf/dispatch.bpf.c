// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("sk_lookup")
int dispatch(struct bpf_sk_lookup *ctx)
{
	(void)ctx;
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
