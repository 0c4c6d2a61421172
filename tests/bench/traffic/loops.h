// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The loops of the traffic benchmark that Python would be too slow for: datagrams, connections and SYNs as fast as one
// processor makes them, to destinations prepared beforehand. Called through ctypes by loops.py. They open no socket
// of a kind that they were not given and know nothing of sockbroker.
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <time.h>

#define SB_IDLE_USEC 20000

struct sb_targets {
        int family;
        unsigned count;
        unsigned next;             // where the next slice goes on, so that each has fresh ones
        struct in6_addr* sources;  // of each destination's client, IPv4 in the first four bytes; NULL: the socket's own
        struct sockaddr_in6 addresses[];
};

struct sb_outcome {
        long done;
        long failed;
        double seconds;      // wall clock
        double cpu_seconds;  // of the calling thread, softirq on its behalf included
        int error;           // errno of the last failure
};

// `count` destinations whose last 16 bits are random, below `prefix` (16 bytes for IPv6, 4 for IPv4); all the same one
// when `one` is set.
struct sb_targets* sb_make_targets(int family, const void* prefix, unsigned port, unsigned count, unsigned seed,
                                   int one);

// Each destination has a client of its own from then on: at most 65,536 addresses below `prefix`, which must be local.
int sb_set_sources(struct sb_targets* targets, const void* prefix);

// Datagrams of 8 bytes for so long, or `most` of them if that is not 0.
struct sb_outcome sb_udp_send(int fd, struct sb_targets* targets, double seconds, long most);
// Counts datagrams until `*stop` is set and none has come for SB_IDLE_USEC.
struct sb_outcome sb_udp_receive(int fd, const volatile int* stop);
// The same, and sends each back to whom it came from. `failed`: answers that were not sent.
struct sb_outcome sb_udp_echo(int fd, const volatile int* stop);

// Connects for so long, or `most` times if that is not 0, with up to `window` connections that the server has yet to
// reset. Sources in turn.
struct sb_outcome sb_tcp_connect(struct sb_targets* targets, const struct sockaddr_in6* sources, unsigned source_count,
                                 unsigned window, double seconds, long most);
// Accepts and closes; ends as sb_udp_receive() does. SO_LINGER of the listener makes each close a reset.
struct sb_outcome sb_tcp_accept(int fd, const volatile int* stop);

// SYNs from random addresses of 198.18.0.0/15 and random ports, by a packet socket bound to the interface.
// `macs`: destination and source, 12 bytes.
struct sb_outcome sb_syn_flood(int fd, const unsigned char* macs, struct sb_targets* targets, unsigned seed,
                               double seconds);

static inline double sb_clock(clockid_t which) {
        struct timespec now;
        clock_gettime(which, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline struct sb_outcome sb_begin(void) {
        return (struct sb_outcome){.seconds = -sb_clock(CLOCK_MONOTONIC),
                                   .cpu_seconds = -sb_clock(CLOCK_THREAD_CPUTIME_ID)};
}

static inline void sb_end(struct sb_outcome* outcome) {
        outcome->seconds += sb_clock(CLOCK_MONOTONIC);
        outcome->cpu_seconds += sb_clock(CLOCK_THREAD_CPUTIME_ID);
}

// What sendmmsg(2) has returned.
static inline void sb_count(struct sb_outcome* outcome, int sent) {
        if (sent < 0) {
                outcome->failed++;
                outcome->error = errno;
        } else {
                outcome->done += sent;
        }
}

static inline socklen_t sb_length(int family) {
        return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

// splitmix64
static inline unsigned long long sb_random(unsigned long long* state) {
        unsigned long long x = *state += 0x9e3779b97f4a7c15ULL;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}
