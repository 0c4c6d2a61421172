// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections: the client connects, the server accepts and resets, the client sees the reset. A window of connections
// keeps both busy without the queue of the listener ever filling up; a reset leaves no TIME_WAIT, so ports do not
// run out. With veth the whole handshake runs on the client's processor, within connect(2).
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/traffic/loops.h"

enum { kWindow = 1024 };

static void finish(int fd, struct sb_outcome* outcome) {
        char byte;
        // The reset, or an orderly end where the server does not linger.
        if (recv(fd, &byte, 1, 0) < 0 && errno != ECONNRESET) {
                outcome->failed++;
                outcome->error = errno;
        } else {
                outcome->done++;
        }
        close(fd);
}

static int start(const struct sockaddr_in6* to, const struct sockaddr_in6* from, int family) {
        const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct timeval wait = {.tv_sec = 8};
        const struct linger reset = {.l_onoff = 1};
        const int yes = 1;

        if (fd < 0)
                return -1;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        if (bind(fd, (const struct sockaddr*)from, sb_length(family)) == 0 &&
            connect(fd, (const struct sockaddr*)to, sb_length(family)) == 0)
                return fd;
        const int error = errno;
        close(fd);
        errno = error;
        return -1;
}

struct sb_outcome sb_tcp_connect(struct sb_targets* targets, const struct sockaddr_in6* sources, unsigned source_count,
                                 unsigned window, double seconds, long most) {
        int open[kWindow];
        struct sb_outcome outcome = sb_begin();
        const double end = seconds - outcome.seconds;
        long started = 0;

        if (window > kWindow)
                window = kWindow;
        memset(open, -1, sizeof open);
        while (sb_clock(CLOCK_MONOTONIC) < end && (most == 0 || started < most)) {
                int* const place = &open[started % window];
                if (*place >= 0)
                        finish(*place, &outcome);
                *place = start(&targets->addresses[targets->next], &sources[started % source_count], targets->family);
                if (*place < 0 && errno == ECONNRESET) {
                        outcome.done++;  // accepted and reset before connect(2) had returned
                } else if (*place < 0) {
                        outcome.failed++;
                        outcome.error = errno;
                }
                targets->next = (targets->next + 1) % targets->count;
                started++;
        }
        for (unsigned i = 0; i < window; i++)
                if (open[i] >= 0)
                        finish(open[i], &outcome);
        sb_end(&outcome);
        return outcome;
}

struct sb_outcome sb_tcp_accept(int fd, const volatile int* stop) {
        struct sb_outcome outcome = sb_begin();
        const struct timeval wait = {.tv_usec = SB_IDLE_USEC};
        const struct linger reset = {.l_onoff = 1};

        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);  // the accepted ones inherit it
        for (;;) {
                const int last = *stop;
                const int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                if (got >= 0) {
                        outcome.done++;
                        close(got);
                } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                        outcome.error = errno;
                }
                if (got < 0 && (last || outcome.error))
                        break;
        }
        sb_end(&outcome);
        return outcome;
}
