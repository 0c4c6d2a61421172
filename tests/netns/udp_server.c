/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_udp_replies.py: a UDP server as they were written before IP_PKTINFO, which answers each datagram with
 * itself.
 *
 *   udp_server 4|6 PORT       at the unspecified address; recvfrom(2), sendto(2)
 *   udp_server 4|6 PORT N     recvmmsg(2) of N datagrams, then one sendmmsg(2) of N answers
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 64, ROOM = 2048 };

static int fail(const char* what) {
        perror(what);
        return 1;
}

static int one_by_one(int fd) {
        char data[ROOM];
        for (;;) {
                struct sockaddr_storage peer;
                socklen_t size = sizeof peer;
                const ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr*)&peer, &size);
                if (got < 0)
                        return fail("recvfrom");
                if (sendto(fd, data, (size_t)got, 0, (struct sockaddr*)&peer, size) != got)
                        return fail("sendto");
        }
}

static int many_at_once(int fd, unsigned count) {
        static char data[MOST][ROOM];
        struct sockaddr_storage peers[MOST];
        struct iovec parts[MOST];
        struct mmsghdr messages[MOST];
        for (;;) {
                memset(messages, 0, sizeof messages);
                for (unsigned i = 0; i < count; i++) {
                        parts[i] = (struct iovec){data[i], ROOM};
                        messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i],
                                                              .msg_namelen = sizeof peers[i],
                                                              .msg_iov = &parts[i],
                                                              .msg_iovlen = 1};
                }
                if (recvmmsg(fd, messages, count, 0, NULL) != (int)count)
                        return fail("recvmmsg");
                for (unsigned i = 0; i < count; i++)
                        parts[i].iov_len = messages[i].msg_len;
                if (sendmmsg(fd, messages, count, 0) != (int)count)
                        return fail("sendmmsg");
        }
}

int main(int argc, char** argv) {
        if (argc < 3)
                return 2;
        const int family = argv[1][0] == '6' ? AF_INET6 : AF_INET;
        const in_port_t port = htons((in_port_t)atoi(argv[2]));
        const struct sockaddr_in at4 = {.sin_family = AF_INET, .sin_port = port};
        const struct sockaddr_in6 at6 = {.sin6_family = AF_INET6, .sin6_port = port};
        const int fd = socket(family, SOCK_DGRAM, 0);
        if (fd < 0 || (family == AF_INET ? bind(fd, (const struct sockaddr*)&at4, sizeof at4)
                                         : bind(fd, (const struct sockaddr*)&at6, sizeof at6)) != 0)
                return fail("bind");
        return argc > 3 ? many_at_once(fd, (unsigned)atoi(argv[3]) % (MOST + 1)) : one_by_one(fd);
}
