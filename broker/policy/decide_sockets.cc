// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The second half of decide.h: whether sockets fit a service that the peer is admitted to.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "broker/policy/decide.h"

namespace sockbroker {

namespace {

constexpr std::array kFamilies{Family::kIpv4, Family::kIpv6};

std::size_t index(auto value) {
        return static_cast<std::size_t>(value);
}

std::string_view person(Family family) {
        return family == Family::kIpv4 ? "IPv4" : "IPv6";
}

std::string_view person(Protocol protocol) {
        return protocol == Protocol::kTcp ? "TCP" : "UDP";
}

bool& part(Assignment& assignment, Family family) {
        return family == Family::kIpv4 ? assignment.ipv4 : assignment.ipv6;
}

// [protocol][family]
using Table = std::array<std::array<bool, 2>, 2>;

std::string_view person(SocketFamily family) {
        return family == SocketFamily::kDual ? "IPv4 or IPv6"
                                             : person(family == SocketFamily::kIpv4 ? Family::kIpv4 : Family::kIpv6);
}

Refusal useless(const Policy& policy, const Service& service, const SocketFacts& socket) {
        for (const auto family : kFamilies) {
                if (!takes(socket.family, family) || has_clients(service, family)) {
                        continue;
                }
                const auto binding = std::ranges::find_if(service.bindings, [&](const Binding& one) {
                        return one.protocol == socket.protocol && one.prefix.address.family == family;
                });
                if (binding != service.bindings.end()) {
                        return {ResultCode::kWrongSocket,
                                fmt::format("service {} has Source= for {} only, so no client could reach the socket "
                                            "bound to {}: add a Source= of {} or hand over another socket",
                                            service.name,
                                            person(family == Family::kIpv4 ? Family::kIpv6 : Family::kIpv4),
                                            socket.bound.to_string(), person(family)),
                                policy.location(service.where)};
                }
        }
        return {ResultCode::kWrongSocket,
                fmt::format(
                        "service {} has no {}= binding of {} that the socket bound to {} could serve, add one or hand "
                        "over another socket",
                        service.name, listen_key(socket.protocol), person(socket.family), socket.bound.to_string()),
                policy.location(service.where)};
}

// Two sockets where one can serve. With different ports they are two servers (plain and TLS, for instance), and sharing
// would give each the other's clients; on one port they are workers of one.
Refusal doubled(const Policy& policy, const Service& service, const SocketFacts& socket, const SocketFacts& first) {
        std::string remedy;
        if (service.handover == Handover::kShare) {
                remedy =
                        "a dual-stack socket cannot stand beside sockets of both families: hand over one or the others";
        } else if (socket.bound.port == first.bound.port) {
                remedy = "each client would find one of them only: hand over one, or, where they are workers that all "
                         "answer alike, say Handover=share";
        } else {
                remedy = fmt::format(
                        "each of its clients, whatever the port, would come to one of them: make another service for "
                        "the other port (a section of its own, and its name as FDNAME= or FileDescriptorName=). "
                        "Handover=share would mix the clients of port {} and port {}",
                        first.bound.port, socket.bound.port);
        }
        return {ResultCode::kWrongSocket,
                fmt::format("the sockets bound to {} and {} are both for {} and {} of service {}, {}",
                            first.bound.to_string(), socket.bound.to_string(), person(socket.protocol),
                            person(socket.family), service.name, remedy),
                policy.location(service.where)};
}

// One of those that leave it nothing to serve; there is one.
const SocketFacts& in_its_place(std::span<const SocketFacts> sockets, const SocketFacts& socket) {
        return *std::ranges::find_if(sockets, [&](const SocketFacts& other) {
                return &other != &socket && other.protocol == socket.protocol &&
                       std::ranges::any_of(kFamilies, [&](Family family) {
                               return takes(other.family, family) && takes(socket.family, family);
                       });
        });
}

}  // namespace

std::vector<std::size_t> distinct_sockets(std::span<const SocketFacts> sockets) {
        std::vector<std::size_t> distinct;
        std::set<std::uint64_t> cookies;
        for (std::size_t i = 0; i < sockets.size(); i++) {
                // What is no socket has no cookie, and is refused for that.
                if (sockets[i].cookie == 0 || cookies.insert(sockets[i].cookie).second) {
                        distinct.push_back(i);
                }
        }
        return distinct;
}

std::expected<std::vector<Assignment>, Refusal> check_sockets(const Policy& policy, const Service& service,
                                                              std::span<const SocketFacts> sockets,
                                                              std::uint64_t netns_cookie) {
        const Table& used = service.used;
        for (const auto& socket : sockets) {
                if (auto refusal = check_socket(socket, netns_cookie)) {
                        return std::unexpected(std::move(*refusal));
                }
                const auto& families = used[index(socket.protocol)];
                if (std::none_of(kFamilies.begin(), kFamilies.end(), [&](Family family) {
                            return takes(socket.family, family) && families[index(family)];
                    })) {
                        return std::unexpected(useless(policy, service, socket));
                }
        }
        std::vector<Assignment> assignments(sockets.size());
        Table given{};
        const bool share = service.handover == Handover::kShare;
        // Sockets of one family first: a dual-stack socket takes what they leave.
        for (const bool dual : {false, true}) {
                for (std::size_t i = 0; i < sockets.size(); i++) {
                        if (dual != (sockets[i].family == SocketFamily::kDual)) {
                                continue;
                        }
                        bool serves = false;
                        for (const auto family : kFamilies) {
                                bool& taken = given[index(sockets[i].protocol)][index(family)];
                                if (!takes(sockets[i].family, family) || (taken && (dual || !share))) {
                                        continue;
                                }
                                part(assignments[i], family) = true;
                                taken = taken || !(dual && share);
                                serves = serves || used[index(sockets[i].protocol)][index(family)];
                        }
                        if (!serves) {
                                return std::unexpected(
                                        doubled(policy, service, sockets[i], in_its_place(sockets, sockets[i])));
                        }
                }
        }
        return assignments;
}

std::optional<Refusal> check_occupancy(const Policy& policy, const Service& service,
                                       std::span<const SocketFacts> sockets, std::span<const Assignment> assignments,
                                       const Occupancy& occupancy) {
        const auto after = std::uint64_t{occupancy.live} + sockets.size();
        if (after > service.max_sockets) {
                return Refusal{
                        ResultCode::kQuota,
                        fmt::format("service {} would have {} live sockets, MaxSockets={} allows no more: close old "
                                    "ones or raise it",
                                    service.name, after, service.max_sockets),
                        policy.location(service.where)};
        }
        if (service.handover != Handover::kRefuse) {
                return std::nullopt;
        }
        for (std::size_t i = 0; i < sockets.size() && i < assignments.size(); i++) {
                for (const auto family : kFamilies) {
                        const bool wanted = family == Family::kIpv4 ? assignments[i].ipv4 : assignments[i].ipv6;
                        const auto& holder = occupancy.holder[index(sockets[i].protocol)][index(family)];
                        if (wanted && !holder.empty()) {
                                return Refusal{
                                        ResultCode::kBusy,
                                        fmt::format("{} {} of service {} is served by {} and Handover=refuse lets "
                                                    "nobody displace it, end that one first",
                                                    person(sockets[i].protocol), person(family), service.name, holder),
                                        policy.location(service.where)};
                        }
                }
        }
        return std::nullopt;
}

}  // namespace sockbroker
