// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/end_socket.h"

#include <sys/socket.h>

#include "sandbox/supervise/plan.h"

namespace sockbroker::supervise {

// A UDP socket is connected to nobody: to the discard port of loopback, of the family that it is bound to.
void end_socket(int fd, const SocketFacts& facts) {
        if (facts.protocol == Protocol::kTcp) {
                (void)::shutdown(fd, SHUT_RDWR);
                return;
        }
        constexpr std::uint16_t kDiscard = 9;
        const bool ipv6 = facts.domain == AF_INET6;
        const Family family = ipv6 && facts.family != SocketFamily::kDual ? Family::kIpv6 : Family::kIpv4;
        const auto nobody = to_socket_address({.address = loopback(family), .port = kDiscard}, ipv6);
        (void)::connect(fd, nobody.get(), nobody.size);
}

void revive_socket(int fd) {
        const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
        (void)::connect(fd, &nobody, sizeof nobody);
}

}  // namespace sockbroker::supervise
