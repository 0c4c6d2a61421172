// SPDX-License-Identifier: LGPL-2.1-or-later
//
// SYNs by a packet socket: frames are made beforehand, checksums and all, and sent again and again in batches. For
// a veth pair of the caller's own; the source addresses are those set aside for benchmarks (RFC 2544).
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/bench/traffic/loops.h"

enum { kBatch = 64, kFrames = 65536 };

struct frame {
        struct ethhdr link;
        struct iphdr ip;
        struct tcphdr tcp;
} __attribute__((packed));

static unsigned sum(const void* data, size_t size, unsigned start) {
        const unsigned char* bytes = data;
        for (size_t i = 0; i + 1 < size; i += 2)
                start += (unsigned)(bytes[i] << 8 | bytes[i + 1]);
        return start;
}

static unsigned short fold(unsigned value) {
        while (value >> 16)
                value = (value & 0xffff) + (value >> 16);
        return htons((unsigned short)~value);
}

static void make(struct frame* frame, const unsigned char* macs, const struct sockaddr_in* to,
                 unsigned long long random) {
        memset(frame, 0, sizeof *frame);
        memcpy(&frame->link, macs, 12);
        frame->link.h_proto = htons(ETH_P_IP);
        frame->ip.version = 4;
        frame->ip.ihl = 5;
        frame->ip.tot_len = htons(sizeof frame->ip + sizeof frame->tcp);
        frame->ip.ttl = 64;
        frame->ip.protocol = IPPROTO_TCP;
        frame->ip.saddr = htonl(0xc6120000 | (random & 0x1ffff));
        frame->ip.daddr = to->sin_addr.s_addr;
        frame->ip.check = fold(sum(&frame->ip, sizeof frame->ip, 0));
        frame->tcp.source = htons((unsigned short)(1024 + (random >> 20) % 64512));
        frame->tcp.dest = to->sin_port;
        frame->tcp.seq = (unsigned)(random >> 32);
        frame->tcp.doff = sizeof frame->tcp / 4;
        frame->tcp.syn = 1;
        frame->tcp.window = htons(64240);
        frame->tcp.check =
                fold(sum(&frame->tcp, sizeof frame->tcp, sum(&frame->ip.saddr, 8, IPPROTO_TCP + sizeof frame->tcp)));
}

struct sb_outcome sb_syn_flood(int fd, const unsigned char* macs, struct sb_targets* targets, unsigned seed,
                               double seconds) {
        struct sb_outcome outcome = {0};
        struct frame* frames = malloc(kFrames * sizeof *frames);
        struct iovec vectors[kBatch];
        struct mmsghdr messages[kBatch] = {0};
        unsigned long long state = seed;
        unsigned next = 0;

        if (!frames) {
                outcome.error = ENOMEM;
                return outcome;
        }
        for (unsigned i = 0; i < kFrames; i++) {
                make(&frames[i], macs, (const struct sockaddr_in*)&targets->addresses[targets->next],
                     sb_random(&state));
                targets->next = (targets->next + 1) % targets->count;
        }
        outcome = sb_begin();
        const double end = seconds - outcome.seconds;
        while (sb_clock(CLOCK_MONOTONIC) < end) {
                for (unsigned i = 0; i < kBatch; i++) {
                        vectors[i] = (struct iovec){&frames[next], sizeof frames[next]};
                        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
                        next = (next + 1) % kFrames;
                }
                sb_count(&outcome, sendmmsg(fd, messages, kBatch, 0));
        }
        sb_end(&outcome);
        free(frames);
        return outcome;
}
