// SPDX-License-Identifier: LGPL-2.1-or-later
//
// poll(2) of a TCP or UDP socket takes no lock of the socket (tcp_poll(), udp_poll()), nor do options of SOL_SOCKET,
// nor does TCP_INFO of one that listens (tcp_get_info() returns before it). Of any other TCP socket it does, so it is
// asked of listeners alone; one that stops listening in between would have to have its lock kept within that
// microsecond too.
#include "broker/socket/queue.h"

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace sockbroker {

namespace {

template <class T>
bool read_option(int fd, int level, int name, T& value) {
        socklen_t size = sizeof value;
        return getsockopt(fd, level, name, &value, &size) == 0;
}

}  // namespace

std::uint64_t waiting_in(int fd) {
        pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
        int protocol = 0;
        constexpr timespec kNow{};
        if (ppoll(&entry, 1, &kNow, nullptr) != 1 || (entry.revents & POLLIN) == 0 ||
            !read_option(fd, SOL_SOCKET, SO_PROTOCOL, protocol)) {
                return 0;
        }
        std::uint32_t waiting = 0;
        if (protocol == IPPROTO_UDP) {
                std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
                if (read_option(fd, SOL_SOCKET, SO_MEMINFO, memory)) {
                        waiting = memory[SK_MEMINFO_RMEM_ALLOC];
                }
                return std::max(waiting, 1U);
        }
        int listening = 0;
        if (!read_option(fd, SOL_SOCKET, SO_ACCEPTCONN, listening) || listening == 0) {
                return 0;  // shut down: whoever waited was reset
        }
        tcp_info info{};
        if (read_option(fd, IPPROTO_TCP, TCP_INFO, info)) {
                waiting = info.tcpi_unacked;  // of a listener: accept queue; tcpi_sacked is its limit
        }
        return std::max(waiting, 1U);
}

}  // namespace sockbroker
