// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/options_copy.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace sockbroker::supervise {

namespace {

struct Option {
        int level;
        int name;
};

// Each fits into 16 bytes; names that are not in the headers of all systems by number (asm-generic/socket.h).
constexpr std::array kOptions = {
        Option{SOL_SOCKET, SO_KEEPALIVE},
        Option{SOL_SOCKET, SO_LINGER},
        Option{SOL_SOCKET, SO_OOBINLINE},
        Option{SOL_SOCKET, SO_BROADCAST},
        Option{SOL_SOCKET, SO_RCVLOWAT},
        Option{SOL_SOCKET, SO_RCVTIMEO},
        Option{SOL_SOCKET, SO_SNDTIMEO},
        Option{SOL_SOCKET, SO_PRIORITY},
        Option{SOL_SOCKET, SO_DONTROUTE},
        Option{SOL_SOCKET, SO_INCOMING_CPU},
        Option{SOL_SOCKET, SO_MAX_PACING_RATE},
        Option{SOL_SOCKET, SO_TIMESTAMP},
        Option{SOL_SOCKET, SO_TIMESTAMPNS},
        Option{SOL_SOCKET, SO_TIMESTAMPING},
        Option{SOL_SOCKET, SO_RXQ_OVFL},
        Option{SOL_SOCKET, SO_BUSY_POLL},
        Option{SOL_SOCKET, SO_ZEROCOPY},
        Option{SOL_SOCKET, SO_PEEK_OFF},
        Option{SOL_SOCKET, 63},  // SO_TIMESTAMP_NEW; each after its older form, which takes its flag away
        Option{SOL_SOCKET, 64},  // SO_TIMESTAMPNS_NEW
        Option{SOL_SOCKET, 65},  // SO_TIMESTAMPING_NEW
        Option{IPPROTO_IP, IP_TOS},
        Option{IPPROTO_IP, IP_TTL},
        Option{IPPROTO_IP, IP_PKTINFO},
        Option{IPPROTO_IP, IP_MTU_DISCOVER},
        Option{IPPROTO_IP, IP_RECVERR},
        Option{IPPROTO_IP, IP_RECVTTL},
        Option{IPPROTO_IP, IP_RECVTOS},
        Option{IPPROTO_IP, IP_RECVORIGDSTADDR},
        Option{IPPROTO_IP, IP_MINTTL},
        Option{IPPROTO_IP, 25},  // IP_RECVFRAGSIZE
        Option{IPPROTO_IP, IP_MULTICAST_TTL},
        Option{IPPROTO_IP, IP_MULTICAST_LOOP},
        Option{IPPROTO_IP, IP_MULTICAST_ALL},
        Option{IPPROTO_IPV6, IPV6_UNICAST_HOPS},
        Option{IPPROTO_IPV6, IPV6_TCLASS},
        Option{IPPROTO_IPV6, IPV6_RECVTCLASS},
        Option{IPPROTO_IPV6, IPV6_RECVPKTINFO},
        Option{IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
        Option{IPPROTO_IPV6, IPV6_RECVERR},
        Option{IPPROTO_IPV6, IPV6_MTU_DISCOVER},
        Option{IPPROTO_IPV6, IPV6_DONTFRAG},
        Option{IPPROTO_IPV6, IPV6_RECVORIGDSTADDR},
        Option{IPPROTO_IPV6, 77},  // IPV6_RECVFRAGSIZE
        Option{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL},
        Option{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES},
        Option{IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
        Option{IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
        Option{IPPROTO_IPV6, 29},  // IPV6_MULTICAST_ALL
        Option{IPPROTO_TCP, TCP_NODELAY},
        Option{IPPROTO_TCP, TCP_DEFER_ACCEPT},
        Option{IPPROTO_TCP, TCP_KEEPIDLE},
        Option{IPPROTO_TCP, TCP_KEEPINTVL},
        Option{IPPROTO_TCP, TCP_KEEPCNT},
        Option{IPPROTO_TCP, TCP_USER_TIMEOUT},
        Option{IPPROTO_TCP, TCP_FASTOPEN},
        Option{IPPROTO_TCP, TCP_NOTSENT_LOWAT},
        Option{IPPROTO_TCP, TCP_CONGESTION},
        Option{IPPROTO_TCP, TCP_SAVE_SYN},
        Option{IPPROTO_TCP, TCP_SYNCNT},
        Option{IPPROTO_TCP, TCP_LINGER2},
        Option{IPPROTO_TCP, TCP_WINDOW_CLAMP},
        Option{IPPROTO_TCP, 36},  // TCP_INQ
        Option{IPPROTO_UDP, UDP_GRO},
        Option{IPPROTO_UDP, UDP_SEGMENT},
};

struct Value {
        std::array<char, 16> bytes{};
        socklen_t size = 0;
        bool there = false;

        bool operator==(const Value&) const = default;
};

Value get(int fd, const Option& option) {
        Value value;
        value.size = value.bytes.size();
        value.there = ::getsockopt(fd, option.level, option.name, value.bytes.data(), &value.size) == 0;
        return value;
}

// The kernel doubles what is set and tells the double (socket(7)).
void copy_buffer(int from, int to, int name) {
        int wanted = 0;
        int there = 0;
        socklen_t size = sizeof wanted;
        if (::getsockopt(from, SOL_SOCKET, name, &wanted, &size) == 0 &&
            ::getsockopt(to, SOL_SOCKET, name, &there, &size) == 0 && wanted != there) {
                wanted /= 2;
                (void)::setsockopt(to, SOL_SOCKET, name, &wanted, sizeof wanted);
        }
}

// Where nothing was set the kernel tells its default, and setting that would limit each connection to it.
void copy_segment_size(int from, int to) {
        constexpr int kDefault = 536;  // TCP_MSS_DEFAULT of linux/tcp.h
        int wanted = 0;
        int there = 0;
        socklen_t size = sizeof wanted;
        if (::getsockopt(from, IPPROTO_TCP, TCP_MAXSEG, &wanted, &size) == 0 &&
            ::getsockopt(to, IPPROTO_TCP, TCP_MAXSEG, &there, &size) == 0 && wanted != there) {
                wanted = wanted == kDefault ? 0 : wanted;
                (void)::setsockopt(to, IPPROTO_TCP, TCP_MAXSEG, &wanted, sizeof wanted);
        }
}

}  // namespace

void copy_options(int from, int to, bool shared) {
        for (const auto& option : kOptions) {
                const auto wanted = get(from, option);
                if (wanted.there && wanted != get(to, option)) {
                        (void)::setsockopt(to, option.level, option.name, wanted.bytes.data(), wanted.size);
                }
        }
        copy_buffer(from, to, SO_RCVBUF);
        copy_buffer(from, to, SO_SNDBUF);
        copy_segment_size(from, to);
        // Flags are those of the first that it was given to. Whoever has it besides may wait for events, and must not
        // sleep in accept(2) since another wanted to.
        const int wanted = ::fcntl(from, F_GETFL);
        const int there = ::fcntl(to, F_GETFL);
        if (wanted >= 0 && there >= 0 && ((wanted ^ there) & O_NONBLOCK) != 0 &&
            (!shared || (wanted & O_NONBLOCK) != 0)) {
                (void)::fcntl(to, F_SETFL, (there & ~O_NONBLOCK) | (wanted & O_NONBLOCK));
        }
}

}  // namespace sockbroker::supervise
