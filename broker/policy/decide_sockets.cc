// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The second half of decide.h: whether sockets fit a service that the peer is admitted to.
#include <algorithm>

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

std::string_view key_of(Protocol protocol) {
        return protocol == Protocol::kTcp ? "ListenStream=" : "ListenDatagram=";
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
        return {ResultCode::kWrongSocket,
                fmt::format(
                        "service {} has no {} binding of {} that the socket bound to {} could serve, add one or hand "
                        "over another socket",
                        service.name, key_of(socket.protocol), person(socket.family), socket.bound.to_string()),
                policy.place(service.where)};
}

Refusal doubled(const Policy& policy, const Service& service, const SocketFacts& socket) {
        return {ResultCode::kWrongSocket,
                fmt::format(
                        "the socket bound to {} is the second for {} and {} of service {}: one message may hold one "
                        "socket per protocol and family, or with Handover=share several of each but no dual-stack "
                        "socket "
                        "beside those of both families",
                        socket.bound.to_string(), person(socket.protocol), person(socket.family), service.name),
                policy.place(service.where)};
}

}  // namespace

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
                                return std::unexpected(doubled(policy, service, sockets[i]));
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
                        policy.place(service.where)};
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
                                        policy.place(service.where)};
                        }
                }
        }
        return std::nullopt;
}

}  // namespace sockbroker
