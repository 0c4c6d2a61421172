// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy as it was written: services, each with the matchers of who may register and with its bindings.
// Plain values; made whole by parse_policy() and never changed afterwards.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"

namespace sockbroker {

enum class WhenAbsent : std::uint8_t { kRefuse, kPass, kNext };
enum class Accounting : std::uint8_t { kService, kBinding };
enum class Handover : std::uint8_t { kReplace, kShare, kRefuse };
enum class UdpReply : std::uint8_t { kNo, kOriginal };
enum class UdpFlows : std::uint8_t { kNo, kStay };
enum class Announce : std::uint8_t { kNo, kAny, kAll };

[[nodiscard]] std::string_view to_string(WhenAbsent value);    // "refuse", "pass", "next"
[[nodiscard]] std::string_view to_string(Accounting value);    // "service", "binding"
[[nodiscard]] std::string_view to_string(Handover value);      // "replace", "share", "refuse"
[[nodiscard]] std::string_view to_string(UdpReply value);      // "no", "original"
[[nodiscard]] std::string_view to_string(UdpFlows value);      // "no", "stay"
[[nodiscard]] std::string_view to_string(Announce value);      // "no", "any", "all"
[[nodiscard]] std::string_view listen_key(Protocol protocol);  // "ListenStream", "ListenDatagram"

inline constexpr std::uint32_t kMaxSharing = 256;  // sockets of a service with Handover=share

// A location in the text: an index into Policy::files and a line from 1. Kept small: there may be a million.
struct Where {
        std::uint32_t file = 0;
        std::uint32_t line = 0;

        auto operator<=>(const Where&) const = default;  // in the order of the text
};

struct Binding {
        Prefix prefix;
        PortRange ports;
        Protocol protocol = Protocol::kTcp;
        bool bare = false;  // written as ports alone: this is one of its two families, prefix 0.0.0.0/0 or ::/0
        Where where;
};

// One value of Unit=, User=, Group= or Interface=, to be matched against a peer or an interface.
struct Matcher {
        std::string value;
        Where where;
};

// One value of Source=.
struct Source {
        Prefix prefix;
        Where where;
};

struct Service {
        std::string name;
        Where where;  // its first section
        std::vector<Matcher> units;
        std::vector<Matcher> users;
        std::vector<Matcher> groups;
        std::vector<Binding> bindings;  // a bare one stands twice, IPv4 then IPv6
        // [protocol][family]: how many of them are of it.
        std::array<std::array<std::size_t, 2>, 2> lines{};
        // [protocol][family]: some binding is of it, and is for some client.
        std::array<std::array<bool, 2>, 2> used{};
        // [family], each value once. None in both: any client. None in one of them: there nobody.
        std::array<std::vector<Source>, 2> sources;
        std::vector<Matcher> interfaces;  // each name once; none: any
        WhenAbsent when_absent = WhenAbsent::kRefuse;
        Accounting accounting = Accounting::kService;
        Handover handover = Handover::kReplace;
        bool reuse_port = false;
        UdpReply udp_reply = UdpReply::kNo;
        UdpFlows udp_flows = UdpFlows::kNo;
        bool local_routes = false;
        Announce announce = Announce::kNo;
        std::uint32_t max_sockets = 256;
        std::int64_t hold_usec = 0;  // how long a socket outlives its service; 0: not at all

        // The last line of each key that is checked together with another one; line 0: there is none. Lines of one
        // service may be in several files, whose authors do not know of each other.
        struct LastLines {
                Where units;
                Where handover;
                Where reuse_port;
                Where max_sockets;
                Where udp_reply;
                Where udp_flows;
        } last;
};

// Whether a binding for the prefix is for packets to the address, as dispatch has it: a prefix shorter than /8 (IPv6:
// /16) does not mean this host's own loopback.
[[nodiscard]] bool covers(const Prefix& prefix, const Address& address);

// Which clients a binding is for. Each binding counts once for every source of its family and every interface of its
// service. These are made when they are asked for: a few lines of text may mean millions of them.
struct ClientFilter {
        const Prefix* source = nullptr;      // none: any client
        const Matcher* interface = nullptr;  // none: any
};

[[nodiscard]] inline bool any_source(const Service& service) {
        return service.sources[0].empty() && service.sources[1].empty();
}
[[nodiscard]] inline std::size_t count_client_filters(const Service& service, Family family) {
        const std::size_t sources = any_source(service) ? 1 : service.sources[static_cast<std::size_t>(family)].size();
        return sources * std::max<std::size_t>(1, service.interfaces.size());
}
// Whether a binding of the family is for anybody. If not, dispatch has no rule for it.
[[nodiscard]] inline bool has_clients(const Service& service, Family family) {
        return count_client_filters(service, family) > 0;
}
// `n` is below count_client_filters().
[[nodiscard]] inline ClientFilter client_filter_at(const Service& service, Family family, std::size_t n) {
        const std::size_t interfaces = std::max<std::size_t>(1, service.interfaces.size());
        const auto& sources = service.sources[static_cast<std::size_t>(family)];
        return {.source = sources.empty() ? nullptr : &sources[n / interfaces].prefix,
                .interface = service.interfaces.empty() ? nullptr : &service.interfaces[n % interfaces]};
}

struct Policy {
        std::vector<std::string> files;  // paths as they are shown to people
        std::vector<Service> services;   // sorted by name

        [[nodiscard]] const Service* find(std::string_view name) const;
        [[nodiscard]] std::string location(Where where) const;  // "/etc/sockbroker/conf.d/50-dns.conf:7"
};

}  // namespace sockbroker
