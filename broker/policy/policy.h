// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy as it was written: services with the claims of who may register and the bindings they may receive.
// Plain values; made whole by parse_policy() and never changed afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"

namespace sockbroker {

enum class WhenAbsent : std::uint8_t { kRefuse, kPass };
enum class Handover : std::uint8_t { kReplace, kShare, kRefuse };

[[nodiscard]] std::string_view to_string(WhenAbsent value);  // "refuse", "pass"
[[nodiscard]] std::string_view to_string(Handover value);    // "replace", "share", "refuse"

inline constexpr std::uint32_t kMaxSharing = 256;  // sockets of a service with Handover=share

// A place in the text: an index into Policy::files and a line from 1. Kept small: there may be a million.
struct Where {
        std::uint32_t file = 0;
        std::uint32_t line = 0;
};

struct Binding {
        Prefix prefix;
        PortRange ports;
        Protocol protocol = Protocol::kTcp;
        bool bare = false;  // written as ports alone: this is one of its two families, prefix 0.0.0.0/0 or ::/0
        Where where;
};

// One value of Unit=, User= or Group=.
struct Claim {
        std::string value;
        Where where;
};

struct Service {
        std::string name;
        Where where;  // its first section
        std::vector<Claim> units;
        std::vector<Claim> users;
        std::vector<Claim> groups;
        std::vector<Binding> bindings;  // a bare one stands twice, IPv4 then IPv6
        WhenAbsent when_absent = WhenAbsent::kRefuse;
        Handover handover = Handover::kReplace;
        bool reuse_port = false;
        std::uint32_t max_sockets = 256;
};

struct Policy {
        std::vector<std::string> files;  // paths as they are shown to people
        std::vector<Service> services;   // sorted by name

        [[nodiscard]] const Service* find(std::string_view name) const;
        [[nodiscard]] std::string place(Where where) const;  // "/etc/sockbroker/conf.d/50-dns.conf:7"
};

}  // namespace sockbroker
