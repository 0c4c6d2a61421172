// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Datagrams out and in. With veth the receiver's half of the kernel, lookup included, runs within the sender's system
// call, on the sender's processor; only the reading from the socket runs on the other one.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/bench/traffic/loops.h"

enum { kBatch = 64 };

struct sb_targets* sb_make_targets(int family, const void* prefix, unsigned port, unsigned count, unsigned seed,
                                   int one) {
        struct sb_targets* result = calloc(1, sizeof *result + count * sizeof result->addresses[0]);
        unsigned long long state = seed;

        if (!result)
                return NULL;
        result->family = family;
        result->count = count;
        for (unsigned i = 0; i < count; i++) {
                const unsigned short low = one ? htons(0x4d4d) : (unsigned short)sb_random(&state);
                if (family == AF_INET) {
                        struct sockaddr_in* address = (struct sockaddr_in*)&result->addresses[i];
                        address->sin_family = AF_INET;
                        address->sin_port = htons((unsigned short)port);
                        memcpy(&address->sin_addr, prefix, 4);
                        memcpy((char*)&address->sin_addr + 2, &low, 2);
                } else {
                        struct sockaddr_in6* address = &result->addresses[i];
                        address->sin6_family = AF_INET6;
                        address->sin6_port = htons((unsigned short)port);
                        memcpy(&address->sin6_addr, prefix, 16);
                        memcpy((char*)&address->sin6_addr + 14, &low, 2);
                }
        }
        return result;
}

int sb_set_sources(struct sb_targets* targets, const void* prefix) {
        targets->sources = calloc(targets->count, sizeof targets->sources[0]);
        if (!targets->sources)
                return -1;
        for (unsigned i = 0; i < targets->count; i++) {
                const int last = targets->family == AF_INET ? 2 : 14;
                const unsigned short low = htons((unsigned short)(i * 40503u));  // odd: no two the same
                memcpy(&targets->sources[i], prefix, (size_t)last + 2);
                memcpy((char*)&targets->sources[i] + last, &low, 2);
        }
        return 0;
}

union control {
        char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
        struct cmsghdr aligned;
};

// Has the message leave from that address.
static void set_source(struct msghdr* message, union control* control, int family, const struct in6_addr* source) {
        message->msg_control = control->bytes;
        message->msg_controllen = sizeof control->bytes;
        struct cmsghdr* part = CMSG_FIRSTHDR(message);
        if (family == AF_INET) {
                struct in_pktinfo info = {0};
                memcpy(&info.ipi_spec_dst, source, sizeof info.ipi_spec_dst);
                *part = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
                memcpy(CMSG_DATA(part), &info, sizeof info);
                message->msg_controllen = CMSG_SPACE(sizeof info);
        } else {
                struct in6_pktinfo info = {.ipi6_addr = *source};
                *part = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO};
                memcpy(CMSG_DATA(part), &info, sizeof info);
        }
}

struct sb_outcome sb_udp_send(int fd, struct sb_targets* targets, double seconds, long most) {
        char payload[8] = "datagram";
        struct iovec vector = {payload, sizeof payload};
        struct mmsghdr messages[kBatch] = {0};
        union control controls[kBatch];
        struct sb_outcome outcome = sb_begin();
        const double end = seconds - outcome.seconds;

        while (sb_clock(CLOCK_MONOTONIC) < end && (most == 0 || outcome.done < most)) {
                unsigned batch = kBatch;
                if (most != 0 && most - outcome.done < kBatch)
                        batch = (unsigned)(most - outcome.done);
                for (unsigned i = 0; i < batch; i++) {
                        messages[i].msg_hdr = (struct msghdr){.msg_name = &targets->addresses[targets->next],
                                                              .msg_namelen = sb_length(targets->family),
                                                              .msg_iov = &vector,
                                                              .msg_iovlen = 1};
                        if (targets->sources)
                                set_source(&messages[i].msg_hdr, &controls[i], targets->family,
                                           &targets->sources[targets->next]);
                        targets->next = (targets->next + 1) % targets->count;
                }
                sb_count(&outcome, sendmmsg(fd, messages, batch, 0));
        }
        sb_end(&outcome);
        return outcome;
}

static void send_back(int fd, struct mmsghdr* messages, int count, struct sb_outcome* outcome) {
        for (int sent = 0; sent < count;) {
                const int now = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);
                if (now <= 0) {
                        outcome->failed++;
                        outcome->error = errno;
                }
                sent += now > 0 ? now : 1;
        }
}

static struct sb_outcome receive(int fd, const volatile int* stop, int answers) {
        char payloads[kBatch][8];
        struct sockaddr_in6 peers[kBatch];
        struct iovec vectors[kBatch];
        struct mmsghdr messages[kBatch] = {0};
        struct sb_outcome outcome = sb_begin();
        const struct timeval wait = {.tv_usec = SB_IDLE_USEC};

        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        for (unsigned i = 0; i < kBatch; i++)
                vectors[i] = (struct iovec){payloads[i], sizeof payloads[i]};
        for (;;) {
                const int last = *stop;  // before the wait, so that what was sent until then is read
                for (unsigned i = 0; i < kBatch; i++)
                        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i],
                                                              .msg_iovlen = 1,
                                                              .msg_name = answers ? &peers[i] : NULL,
                                                              .msg_namelen = answers ? sizeof peers[i] : 0};
                const int got = recvmmsg(fd, messages, kBatch, MSG_WAITFORONE, NULL);
                if (got > 0) {
                        outcome.done += got;
                        if (answers)
                                send_back(fd, messages, got, &outcome);
                } else if (errno != EAGAIN && errno != EINTR) {
                        outcome.error = errno;
                }
                if (got < 0 && (last || outcome.error))
                        break;
        }
        sb_end(&outcome);
        return outcome;
}

struct sb_outcome sb_udp_receive(int fd, const volatile int* stop) {
        return receive(fd, stop, 0);
}

struct sb_outcome sb_udp_echo(int fd, const volatile int* stop) {
        return receive(fd, stop, 1);
}
