/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Way (a) in C: an echo server on one TCP and one UDP socket, handed to the broker by sd_pid_notify_with_fds(3), the
 * call that every systemd service can make. A UDP answer carries the port that the socket is bound to, so that this is
 * the port to serve; it leaves from the address that the client asked, in the few lines that IPV6_PKTINFO takes. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

enum { ECHO_PORT = 7777 };

static void enable(int fd, int level, int option) {
        if (setsockopt(fd, level, option, &(int){1}, sizeof(int)) < 0)
                err(EXIT_FAILURE, "cannot set socket option %d", option);
}

/* [::ffff:127.0.0.5] is dual-stack: one socket takes the lookups of IPv4 and of IPv6. Bound to [::1] it would not. */
static int make_socket(int type) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(ECHO_PORT)};
        int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0);
        if (fd < 0)
                err(EXIT_FAILURE, "cannot make a socket");
        if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int)) < 0)
                err(EXIT_FAILURE, "cannot make the socket dual-stack");
        enable(fd, SOL_SOCKET, SO_REUSEPORT); /* lets a new instance join the group of the one that it relieves */
        inet_pton(AF_INET6, "::ffff:127.0.0.5", &address.sin6_addr);
        if (bind(fd, (const struct sockaddr*)&address, sizeof(address)) < 0)
                err(EXIT_FAILURE, "cannot bind port %d of loopback", ECHO_PORT);
        return fd;
}

/* NOTIFY_SOCKET= names the broker for these two calls alone: READY=1 below is for PID 1. The barrier returns when the
 * broker has read the message; the verdict is in the journal. */
static void register_sockets(const char* service, const int* fds, unsigned n) {
        char *manager = getenv("NOTIFY_SOCKET"), state[64];
        int r;
        if (manager && !(manager = strdup(manager)))
                err(EXIT_FAILURE, "cannot keep NOTIFY_SOCKET=");
        setenv("NOTIFY_SOCKET", "/run/sockbroker/notify", 1);
        strcat(strcpy(state, "FDSTORE=1\nFDNAME="), service);
        r = sd_pid_notify_with_fds(0, 0, state, fds, n);
        if (r > 0)
                r = sd_notify_barrier(0, UINT64_MAX);
        if (r < 0) {
                errno = -r;
                err(EXIT_FAILURE, "cannot reach the broker, is sockbrokerd.socket active?");
        }
        if (manager)
                setenv("NOTIFY_SOCKET", manager, 1);
        else
                unsetenv("NOTIFY_SOCKET");
        free(manager);
}

/* What arrives as ancillary data, the asked address, is what must leave with the answer. */
static void echo_datagram(int fd) {
        char data[65536];
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(struct in6_pktinfo))];
        } control;
        struct sockaddr_in6 client;
        struct iovec part = {data, sizeof(data)};
        struct msghdr message = {&client, sizeof(client), &part, 1, &control, sizeof(control), 0};
        ssize_t n = recvmsg(fd, &message, 0);
        if (n < 0)
                return;
        part.iov_len = (size_t)n;
        struct cmsghdr* header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO)
                ((struct in6_pktinfo*)CMSG_DATA(header))->ipi6_ifindex = 0; /* let routing choose the way back */
        if (sendmsg(fd, &message, MSG_DONTWAIT) < 0)
                warn("cannot answer");
}

static void echo_connection(int listener) {
        char data[65536];
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
                return;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 1}, sizeof(struct timeval));
        ssize_t n = recv(fd, data, sizeof(data), 0);
        if (n > 0 && send(fd, data, (size_t)n, MSG_NOSIGNAL) < 0)
                warn("cannot answer");
        close(fd);
}

int main(void) {
        int fds[] = {make_socket(SOCK_STREAM), make_socket(SOCK_DGRAM)};
        if (listen(fds[0], 1024) < 0)
                err(EXIT_FAILURE, "cannot listen");
        enable(fds[1], IPPROTO_IPV6, IPV6_RECVPKTINFO);
        enable(fds[1], IPPROTO_IPV6, IPV6_FREEBIND); /* may answer from an address that no interface carries */
        register_sockets("echo", fds, 2);
        sd_notify(0, "READY=1");

        struct pollfd events[] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
        while (poll(events, 2, -1) >= 0) {
                if (events[0].revents)
                        echo_connection(fds[0]);
                if (events[1].revents)
                        echo_datagram(fds[1]);
        }
        err(EXIT_FAILURE, "cannot wait");
}
