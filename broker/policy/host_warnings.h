// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Effects of a policy on its host that are probably not intended: it takes a listener's connections
// away, or the answers to the host's own clients; the kernel gives its ports to anybody; no packet gets to it; nobody
// can register. Never an error, for a policy is valid by its text alone. Pure: what the host has is brought along.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/net.h"
#include "broker/policy/diagnostic.h"
#include "broker/policy/policy.h"

namespace sockbroker {

// A TCP listener, or an unconnected UDP socket.
struct HostListener {
        Protocol protocol = Protocol::kTcp;
        Endpoint bound;     // 0.0.0.0 or ::, any address
        bool dual = false;  // of IPv6, and takes IPv4 too
        std::uint32_t uid = 0;
        std::string user;                // its name; empty: not known
        std::vector<std::string> units;  // of those that have it open, as far as one may see
        std::string service;             // that it is registered for, if any
};

// That the broker of these policies has now, and that is not displaced.
struct RegisteredSocket {
        std::string service;
        Protocol protocol = Protocol::kTcp;
        Endpoint bound;
};

struct HostFacts {
        std::optional<std::vector<HostListener>> listeners;  // none: not known, and nothing is said
        std::vector<Address> addresses;                      // of its interfaces, but for loopback
        std::optional<std::vector<Prefix>> local;            // what ends on this host by its routes
        PortRange ephemeral = {32768, 60999};
        std::optional<std::vector<PortRange>> reserved;  // net.ipv4.ip_local_reserved_ports
        std::optional<std::vector<std::string>> units;   // that exist by their own names, templates too
        std::map<std::string, std::string> aliases;      // other names of units: the unit's own
        std::vector<RegisteredSocket> registered;
        std::string netns;  // whose all this is, as `ip netns` has it; empty: the machine's own
};

// The command that makes a prefix local there, for people.
[[nodiscard]] std::string local_route_command(const std::string& netns, const std::string& prefix);

// Services of which no value of Unit= is a unit of the host; to be asked for nothing but those of the policy.
[[nodiscard]] bool has_unit(const std::string& matcher, const std::vector<std::string>& units);

[[nodiscard]] std::vector<Diagnostic> host_warnings(const Policy& policy, const HostFacts& host);

}  // namespace sockbroker
