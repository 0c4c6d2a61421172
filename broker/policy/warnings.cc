// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/warnings.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sockbroker {

namespace {

constexpr std::size_t kShown = 4;  // ports, and sockets of one kind of warning

struct PortCheck {
        std::vector<const SocketFacts*> strays;         // their port is none of the service's
        std::array<std::vector<std::string>, 2> ports;  // of the service, by family, as far as they are shown
};

// Each once, and at most one more than is shown.
void add_shown(std::vector<std::string>& shown, const std::string& ports) {
        if (shown.size() <= kShown && std::ranges::find(shown, ports) == shown.end()) {
                shown.push_back(ports);
        }
}

// One pass over the bindings however many sockets there are, for both may be many; it ends with the last stray.
PortCheck check_ports(const Service& service, std::span<const SocketFacts> sockets) {
        PortCheck check;
        for (const auto& socket : sockets) {
                if (socket.protocol == Protocol::kUdp) {
                        check.strays.push_back(&socket);
                }
        }
        std::ranges::sort(check.strays, {}, [](const SocketFacts* one) { return one->bound.port; });
        const auto& used = service.used[static_cast<std::size_t>(Protocol::kUdp)];
        for (const auto& binding : service.bindings) {
                if (check.strays.empty()) {
                        break;
                }
                const auto family = static_cast<std::size_t>(binding.prefix.address.family);
                if (binding.protocol != Protocol::kUdp || !used[family]) {
                        continue;
                }
                const auto by_port = [](const SocketFacts* one) { return one->bound.port; };
                const auto first = std::ranges::lower_bound(check.strays, binding.ports.first, {}, by_port);
                const auto last = std::ranges::upper_bound(check.strays, binding.ports.last, {}, by_port);
                const auto fits = std::remove_if(first, last, [&](const SocketFacts* one) {
                        return takes(one->family, binding.prefix.address.family);
                });
                check.strays.erase(fits, last);
                add_shown(check.ports[family], binding.ports.to_string());
        }
        return check;
}

// Those of the families that the socket takes.
std::vector<std::string> ports_for(const PortCheck& check, const SocketFacts& socket) {
        std::vector<std::string> result;
        for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                if (takes(socket.family, family)) {
                        for (const auto& ports : check.ports[static_cast<std::size_t>(family)]) {
                                add_shown(result, ports);
                        }
                }
        }
        if (result.size() > kShown) {
                result.back() = "...";
        }
        return result;
}

}  // namespace

std::vector<std::string> port_warnings(const Service& service, std::span<const SocketFacts> sockets) {
        std::vector<std::string> warnings;
        const auto check = check_ports(service, sockets);
        for (const auto* stray : std::span(check.strays).first(std::min(check.strays.size(), kShown))) {
                warnings.push_back(fmt::format(
                        "answers of the UDP socket bound to {} leave from port {}, which is none of the ports of "
                        "service {} ({}), and clients drop them: bind it to the port that is served (below "
                        "net.ipv4.ip_unprivileged_port_start a .socket unit does, or UdpReply=original lets the unit)",
                        stray->bound.to_string(), stray->bound.port, service.name,
                        fmt::join(ports_for(check, *stray), " ")));
        }
        if (check.strays.size() > kShown) {
                warnings.push_back(fmt::format("the same holds for {} more UDP sockets of service {}",
                                               check.strays.size() - kShown, service.name));
        }
        return warnings;
}

std::optional<std::string> family_warning(const Service& service, Protocol protocol, const Endpoint& bound,
                                          const Served& served) {
        const auto& used = service.used[static_cast<std::size_t>(protocol)];
        if (!used[0] || !used[1] || served[0] == served[1]) {
                return std::nullopt;
        }
        return fmt::format(
                "the {} socket bound to {} serves {} only and nothing serves the {} bindings of service {}: register a "
                "socket of that family too, or one for both (bound to [::ffff:127.0.0.1] without IPV6_V6ONLY)",
                protocol == Protocol::kTcp ? "TCP" : "UDP", bound.to_string(), served[0] ? "IPv4" : "IPv6",
                served[0] ? "IPv6" : "IPv4", service.name);
}

std::string group_warning(const Service& service, const SocketFacts& socket, const std::string& other) {
        return fmt::format(
                "the {} socket bound to {} of service {} is in one SO_REUSEPORT group with one of service {}, and the "
                "kernel may give one what is meant for the other: bind each service to an address of its own (of "
                "127.0.0.0/8; for IPv6 one of fd00::/8 with FreeBind=yes or IPV6_FREEBIND)",
                socket.protocol == Protocol::kTcp ? "TCP" : "UDP", socket.bound.to_string(), service.name, other);
}

}  // namespace sockbroker
