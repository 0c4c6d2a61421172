// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Short words for rules and packets, and a packet as a program of sk_lookup is given it. For the tests of the compiler
// and for those in the kernel.
#pragma once

#include <linux/bpf.h>
#include <netinet/in.h>

#include <cstring>
#include <string_view>

#include "broker/dataplane/rules.h"
#include "tests/support/oracle.h"

namespace sockbroker {

inline Rule rule(Protocol protocol, std::string_view prefix, PortRange ports, ServiceId service,
                 Absent absent = Absent::kRefuse) {
        return {.protocol = protocol,
                .prefix = *parse_prefix(prefix),
                .ports = ports,
                .service = service,
                .absent = absent};
}

inline oracle::Packet packet(Protocol protocol, std::string_view to, std::uint16_t port) {
        oracle::Packet result{.protocol = protocol, .to = *parse_address(to), .port = port};
        result.from.family = result.to.family;
        return result;
}

inline bpf_sk_lookup context_of(const oracle::Packet& packet) {
        bpf_sk_lookup context{};
        const bool v4 = packet.to.family == Family::kIpv4;
        context.family = v4 ? AF_INET : AF_INET6;
        context.protocol = packet.protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        std::memcpy(v4 ? &context.local_ip4 : &context.local_ip6[0], packet.to.bytes.data(), v4 ? 4 : 16);
        std::memcpy(v4 ? &context.remote_ip4 : &context.remote_ip6[0], packet.from.bytes.data(), v4 ? 4 : 16);
        context.local_port = packet.port;
        return context;
}

}  // namespace sockbroker
