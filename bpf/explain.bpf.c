// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The dispatch program once more, over the same maps, for one question: what would happen to this packet? Never
 * attached; the broker runs it by BPF_PROG_TEST_RUN. It counts nothing and tells the steps of the walk. A test run
 * takes no ingress interface, so that comes by the trace: not by a constant, for it differs from question to
 * question and nothing can be loaded any more once the broker serves.
 */
#define SB_EXPLAIN 1
#include "bpf/dispatch.bpf.c"
