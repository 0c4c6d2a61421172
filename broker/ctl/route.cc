// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See route.h.
#include "broker/ctl/route.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"
#include "broker/socket/facts.h"

namespace sockbroker::ctl {

namespace {

struct RouteRequest {
        nlmsghdr header;
        rtmsg body;
        rtattr destination;
        std::array<std::uint8_t, 16> address;
};

constexpr timeval kRoutePatience = {.tv_sec = 5, .tv_usec = 0};

Route route_of(unsigned char type) {
        switch (type) {
        case RTN_LOCAL:
        case RTN_ANYCAST:
                return {.local = true, .why_not = {}};
        case RTN_UNICAST:
                return {.why_not = "it is routed elsewhere"};
        case RTN_MULTICAST:
                return {.why_not = "it is multicast", .never = true};
        case RTN_BROADCAST:
                return {.why_not = "it is a broadcast address", .never = true};
        case RTN_BLACKHOLE:
        case RTN_UNREACHABLE:
        case RTN_PROHIBIT:
                return {.why_not = "a route refuses or drops it"};
        default:
                return {.why_not = "its route is of another kind"};
        }
}

}  // namespace

Result<Route> route_to(const Address& address) {
        if (address.family == Family::kIpv4 ? (address.bytes[0] & 0xf0) == 0xe0 : address.bytes[0] == 0xff) {
                return route_of(RTN_MULTICAST);
        }
        const OwnedFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
        if (!fd) {
                return fail_errno("cannot make a netlink socket to ask for a route");
        }
        (void)setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kRoutePatience,
                         sizeof kRoutePatience);  // only for a better error
        const bool ipv4 = address.family == Family::kIpv4;
        const std::uint16_t bytes = ipv4 ? 4 : 16;
        RouteRequest request{};
        request.header.nlmsg_len = static_cast<std::uint32_t>(offsetof(RouteRequest, address)) + bytes;
        request.header.nlmsg_type = RTM_GETROUTE;
        request.header.nlmsg_flags = NLM_F_REQUEST;
        request.body.rtm_family = static_cast<unsigned char>(ipv4 ? AF_INET : AF_INET6);
        request.body.rtm_dst_len = static_cast<unsigned char>(address_bits(address.family));
        request.destination.rta_type = RTA_DST;
        request.destination.rta_len = static_cast<unsigned short>(RTA_LENGTH(bytes));
        std::copy_n(address.bytes.begin(), bytes, request.address.begin());
        if (send(fd.get(), &request, request.header.nlmsg_len, 0) < 0) {
                return fail_errno("cannot ask the kernel for a route");
        }
        alignas(nlmsghdr) std::array<char, 8192> buffer{};
        ssize_t length = 0;
        do {
                length = recv(fd.get(), buffer.data(), buffer.size(), 0);
        } while (length < 0 && errno == EINTR);
        if (length < 0) {
                return fail_errno("cannot read the kernel's answer about a route");
        }
        nlmsghdr header{};
        if (static_cast<std::size_t>(length) < sizeof header + sizeof(rtmsg)) {
                return fail(EPROTO, "the kernel's answer about a route is cut off");
        }
        std::memcpy(&header, buffer.data(), sizeof header);
        if (header.nlmsg_type == NLMSG_ERROR) {
                nlmsgerr error{};
                std::memcpy(&error, buffer.data() + NLMSG_HDRLEN, sizeof error.error);
                return Route{.why_not = fmt::format("there is no route to it ({})", std::strerror(-error.error))};
        }
        rtmsg route{};
        std::memcpy(&route, buffer.data() + NLMSG_HDRLEN, sizeof route);
        return route_of(route.rtm_type);
}

Result<std::uint64_t> netns_cookie_here() {
        return own_netns_cookie();
}

}  // namespace sockbroker::ctl
