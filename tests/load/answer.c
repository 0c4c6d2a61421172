// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/load/answer.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kWaitMsec = 10, kEvents = 256 };

static int reply(char* buffer, size_t size, const char* name, const char* line, ssize_t length) {
        return snprintf(buffer, size, "%s %.*s", name, (int)length, line);
}

// Whether it is done with the connection.
static int serve(int fd, const char* name, long* answered) {
        char line[64], text[128];
        const ssize_t got = recv(fd, line, sizeof line, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
                return 0;
        if (got > 0 && send(fd, text, reply(text, sizeof text, name, line, got), MSG_NOSIGNAL) > 0)
                ++*answered;
        close(fd);
        return 1;
}

long sb_answer_tcp(int listener, const char* name, const volatile int* stop) {
        const int epoll = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event events[kEvents];
        struct epoll_event listening = {.events = EPOLLIN, .data.fd = listener};
        long answered = 0, open = 0;
        int stopped = 0;

        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening);
        while (!stopped || open) {
                if (!stopped && *stop) {
                        stopped = 1;
                        epoll_ctl(epoll, EPOLL_CTL_DEL, listener, NULL);
                }
                const int ready = epoll_wait(epoll, events, kEvents, kWaitMsec);
                for (int i = 0; i < ready; i++) {
                        if (events[i].data.fd != listener) {
                                open -= serve(events[i].data.fd, name, &answered);
                                continue;
                        }
                        for (int most = 0; most < 64; most++) {
                                const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                                if (fd < 0)
                                        break;
                                if (!serve(fd, name, &answered)) {
                                        struct epoll_event waiting = {.events = EPOLLIN, .data.fd = fd};
                                        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &waiting);
                                        open++;
                                }
                        }
                }
        }
        close(epoll);
        return answered;
}

// Keeps of the control messages the one that makes the answer leave from the address that was asked.
static void answer_from_asked(struct msghdr* message) {
        for (struct cmsghdr* one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
                if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
                        struct in_pktinfo* const info = (struct in_pktinfo*)CMSG_DATA(one);
                        info->ipi_ifindex = 0;
                        info->ipi_spec_dst = info->ipi_addr;
                } else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO) {
                        ((struct in6_pktinfo*)CMSG_DATA(one))->ipi6_ifindex = 0;
                } else {
                        continue;
                }
                const size_t length = CMSG_SPACE(one->cmsg_len - CMSG_LEN(0));
                memmove(message->msg_control, one, one->cmsg_len);
                message->msg_controllen = length;
                return;
        }
        message->msg_controllen = 0;
}

long sb_answer_udp(int fd, const char* name, const volatile int* stop) {
        long answered = 0;

        for (;;) {
                const int last = *stop;
                if (last == 2)
                        return answered;
                struct pollfd readable = {.fd = fd, .events = POLLIN};
                poll(&readable, 1, last ? 0 : kWaitMsec);
                for (int most = 0; most < 1024; most++) {
                        char line[64], text[128];
                        _Alignas(struct cmsghdr) char control[256];
                        struct sockaddr_in6 peer;
                        struct iovec vector = {line, sizeof line};
                        struct msghdr message = {.msg_name = &peer,
                                                 .msg_namelen = sizeof peer,
                                                 .msg_iov = &vector,
                                                 .msg_iovlen = 1,
                                                 .msg_control = control,
                                                 .msg_controllen = sizeof control};
                        const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
                        if (got < 0 && errno == EAGAIN)
                                break;
                        if (got < 0)
                                continue;  // an error of an earlier answer
                        answer_from_asked(&message);
                        vector = (struct iovec){text, (size_t)reply(text, sizeof text, name, line, got)};
                        message.msg_flags = 0;
                        answered += sendmsg(fd, &message, MSG_NOSIGNAL) > 0;
                }
                if (last)
                        return answered;
        }
}
