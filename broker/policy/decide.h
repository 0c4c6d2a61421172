// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decisions of policy about a request. Pure: the caller brings every fact. The order of the checks is part of the
// protocol: unknown-service (ambiguous), not-permitted, the sockets, quota, busy.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/peer/peer.h"
#include "broker/policy/accounts.h"
#include "broker/policy/parse.h"
#include "broker/policy/policy.h"
#include "broker/protocol/result_code.h"
#include "broker/socket/facts.h"

namespace sockbroker {

struct Admission {
        const Service* service = nullptr;
        std::string rule;      // file:line of the matcher that admitted
        AccountHash user = 0;  // the names that did; 0: a number, or the service has no such key
        AccountHash group = 0;
};

// Each name of User= and Group= once.
[[nodiscard]] std::vector<AccountName> account_names(const Policy& policy);

// A warning for each name of User= or Group= that does not exist (yet) on this host, or that means the overflow id: it
// matches nobody. And for each that the host gives no answer for. Never an error, since validity depends on the text
// alone.
[[nodiscard]] std::vector<Diagnostic> unknown_accounts(const Policy& policy, const Accounts& accounts);

// The index of the interface that has this very name now, 0: there is none.
using InterfaceLookup = std::function<std::uint32_t(const std::string&)>;
inline constexpr std::uint32_t kMaxInterfaceIndex = (1U << 24) - 1;  // what a rule can hold

// A warning for each name of Interface= that matches nobody on this host now. Never an error, as above.
[[nodiscard]] std::vector<Diagnostic> unknown_interfaces(const Policy& policy, const InterfaceLookup& index_of);

// Every name of Interface= with its index; 0: it matches nobody.
using Interfaces = std::map<std::string, std::uint32_t, std::less<>>;
[[nodiscard]] Interfaces find_interfaces(const Policy& policy, const InterfaceLookup& index_of);

// Whether this peer may register for the named service, or, with an empty name, for which one it may.
[[nodiscard]] std::expected<Admission, Refusal> admit(const Policy& policy, const Peer& peer, std::string_view service,
                                                      const Accounts& accounts);

// Whether the peer may register for the service, by what is known of accounts now.
[[nodiscard]] bool admits(const Service& service, const Peer& peer, const Accounts& accounts);

// Whether the peer could be admitted, as far as that can be told without asking the host for names.
[[nodiscard]] bool may_admit(const Service& service, const Peer& peer);

// The names on which that verdict depends: of the service, or with an empty name of all, without those that are settled
// by a unit or a number.
[[nodiscard]] std::vector<AccountName> names_that_matter(const Policy& policy, const Peer& peer,
                                                         std::string_view service);

// Which descriptors of a message are sockets of their own: the first of each. One that comes several times (a duplicate
// of it, the same descriptor again) counts once.
[[nodiscard]] std::vector<std::size_t> distinct_sockets(std::span<const SocketFacts> sockets);

struct Assignment {  // the families that a socket is to serve
        bool ipv4 = false;
        bool ipv6 = false;
};
// Whether these sockets fit the service: each one brokerable, of a protocol and family that some binding uses, and
// no two in one message for the same protocol and family. result[i] is for sockets[i]: a dual-stack socket serves those
// families that no other socket of the message serves.
[[nodiscard]] std::expected<std::vector<Assignment>, Refusal> check_sockets(const Policy& policy,
                                                                            const Service& service,
                                                                            std::span<const SocketFacts> sockets,
                                                                            std::uint64_t netns_cookie);

// What the sockmap says of a service at this moment.
struct Occupancy {
        std::uint32_t live = 0;  // sockets that would be live after the switch, without the new ones
        // Who serves [protocol][family] now, as a person reads it; empty: nobody.
        std::array<std::array<std::string, 2>, 2> holder;
};
[[nodiscard]] std::optional<Refusal> check_occupancy(const Policy& policy, const Service& service,
                                                     std::span<const SocketFacts> sockets,
                                                     std::span<const Assignment> assignments,
                                                     const Occupancy& occupancy);

}  // namespace sockbroker
