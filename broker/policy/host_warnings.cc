// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/host_warnings.h"

#include <algorithm>
#include <map>
#include <ranges>
#include <set>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/policy/values.h"

namespace sockbroker {

namespace {

bool is_any(const Address& address) {
        return std::ranges::all_of(address.bytes, [](std::uint8_t byte) { return byte == 0; });
}

// The last address of the prefix.
Address last_of(const Prefix& prefix) {
        Address last = prefix.address;
        for (unsigned bit = prefix.length; bit < address_bits(last.family); bit++) {
                last.bytes[bit / 8] |= static_cast<std::uint8_t>(0x80U >> bit % 8);
        }
        return last;
}

// What is covered by any of many prefixes, as ranges that neither touch nor overlap.
class Covered {
public:
        explicit Covered(const std::vector<Prefix>& prefixes) {
                std::vector<std::pair<Address, Address>> all;
                all.reserve(prefixes.size());
                for (const auto& prefix : prefixes) {
                        all.emplace_back(prefix.address, last_of(prefix));
                }
                std::ranges::sort(all);
                for (const auto& one : all) {
                        if (!ranges_.empty() && one.first <= ranges_.back().second) {
                                ranges_.back().second = std::max(ranges_.back().second, one.second);
                        } else {
                                ranges_.push_back(one);
                        }
                }
        }

        // Whether any address of the prefix is.
        [[nodiscard]] bool touches(const Prefix& prefix) const {
                const auto last = last_of(prefix);
                const auto after = std::ranges::upper_bound(ranges_, last, {}, &std::pair<Address, Address>::first);
                return after != ranges_.begin() && std::prev(after)->second >= prefix.address;
        }

private:
        std::vector<std::pair<Address, Address>> ranges_;
};

Diagnostic warning_at(const Policy& policy, Where where, std::string message) {
        return {policy.files.at(where.file), where.line, Severity::kWarning, std::move(message)};
}

// Of a service, those that match anybody.
auto bindings_in_use(const Service& service) {
        return service.bindings | std::views::filter([&service](const Binding& binding) {
                       return has_clients(service, binding.prefix.address.family);
               });
}

bool any_port(const PortRange& ports) {
        return ports == PortRange{};
}

// Whether the listener is of those whom the service admits: then it is the service's own socket.
bool is_of(const HostListener& listener, const Service& service) {
        const auto matches = [](const std::vector<Matcher>& matchers, const auto& fits) {
                return matchers.empty() || std::ranges::any_of(matchers, fits);
        };
        if (listener.service == service.name) {
                return true;
        }
        return !(service.units.empty() && service.users.empty()) && matches(service.users, [&](const Matcher& matcher) {
                return matcher.value == listener.user || matcher.value == std::to_string(listener.uid);
        }) && matches(service.units, [&](const Matcher& matcher) {
                return std::ranges::any_of(listener.units,
                                           [&](const std::string& unit) { return has_unit(matcher.value, {unit}); });
        });
}

class Takeovers {
public:
        Takeovers(const std::vector<HostListener>& listeners, const HostFacts& host) : host_(host) {
                for (const auto& one : listeners) {
                        // Sockets of clients come and go.
                        if (one.protocol == Protocol::kTcp || !host.ephemeral.contains(one.bound.port)) {
                                by_port_.emplace_back(&one, Found{});
                        }
                }
                std::ranges::sort(by_port_, {}, port_of);
        }

        void look_at(const Service& service, const Binding& binding) {
                auto at = std::ranges::lower_bound(by_port_, binding.ports.first, {}, port_of);
                for (; at != by_port_.end() && port_of(*at) <= binding.ports.last; at++) {
                        auto& [listener, found] = *at;
                        const bool better = found.binding == nullptr ||
                                            std::tuple(found.binding->prefix.length, ~found.binding->ports.width()) <
                                                    std::tuple(binding.prefix.length, ~binding.ports.width());
                        if (better && takes(*listener, binding)) {
                                found = {&service, &binding};
                        }
                }
        }

        void tell(const Policy& policy, std::vector<Diagnostic>& warnings) const {
                for (const auto& [listener, found] : by_port_) {
                        if (found.binding == nullptr || is_of(*listener, *found.service)) {
                                continue;
                        }
                        const auto& [service, binding] = found;
                        const bool some = !any_source(*service) || !service->interfaces.empty();
                        warnings.push_back(warning_at(
                                policy, binding->where,
                                fmt::format(
                                        "{}={}: {} listens on {} {} of this host{}: {}{} go to service {}{}",
                                        listen_key(binding->protocol), text_of(*binding), owner_of(*listener),
                                        to_string(listener->protocol), listener->bound.to_string(),
                                        is_any(listener->bound.address) ? ", for any address" : "",
                                        listener->protocol == Protocol::kTcp ? "its new connections" : "its datagrams",
                                        is_any(listener->bound.address) && !binding->bare ? " to this prefix" : "",
                                        service->name, some ? ", from some clients" : "")));
                }
        }

private:
        struct Found {
                const Service* service = nullptr;
                const Binding* binding = nullptr;
        };
        using Entry = std::pair<const HostListener*, Found>;

        static std::uint16_t port_of(const Entry& entry) { return entry.first->bound.port; }

        static std::string text_of(const Binding& binding) {
                auto ports = binding.ports.to_string();
                if (binding.bare) {
                        return ports;
                }
                const bool ipv6 = binding.prefix.address.family == Family::kIpv6;
                return fmt::format("{}{}{}/{}:{}", ipv6 ? "[" : "", binding.prefix.address.to_string(), ipv6 ? "]" : "",
                                   binding.prefix.length, ports);
        }

        static std::string owner_of(const HostListener& listener) {
                if (!listener.units.empty()) {
                        return fmt::format("{}", fmt::join(listener.units, " and "));
                }
                return listener.user.empty() ? fmt::format("a process of uid {}", listener.uid)
                                             : fmt::format("a process of {}", listener.user);
        }

        [[nodiscard]] bool takes(const HostListener& listener, const Binding& binding) const {
                const auto family = binding.prefix.address.family;
                if (binding.protocol != listener.protocol ||
                    (listener.bound.address.family != family && !(listener.dual && family == Family::kIpv4))) {
                        return false;
                }
                if (!is_any(listener.bound.address)) {
                        return covers(binding.prefix, listener.bound.address);
                }
                // One that takes any address loses it at those that the host uses; elsewhere only where the binding
                // means this port.
                return !any_port(binding.ports) || std::ranges::any_of(host_.addresses, [&](const Address& address) {
                        return covers(binding.prefix, address);
                });
        }

        const HostFacts& host_;
        std::vector<Entry> by_port_;
};

// UDP of a range of ports from which the host's own clients ask, at an address which they ask from.
void warn_of_clients(const Policy& policy, const Service& service, const HostFacts& host,
                     std::vector<Diagnostic>& warnings) {
        for (const auto& binding : bindings_in_use(service)) {
                const bool of_clients =
                        binding.protocol == Protocol::kUdp && binding.ports.first != binding.ports.last &&
                        binding.ports.first <= host.ephemeral.last && binding.ports.last >= host.ephemeral.first;
                if (!of_clients) {
                        continue;
                }
                const auto used = std::ranges::find_if(
                        host.addresses, [&](const Address& address) { return covers(binding.prefix, address); });
                if (used != host.addresses.end()) {
                        warnings.push_back(warning_at(
                                policy, binding.where,
                                fmt::format("ListenDatagram=: {} is an address of this host, and its own clients ask "
                                            "from ports {}: answers to those that do not connect their sockets go to "
                                            "service {}; leave that address or these ports out",
                                            used->to_string(), host.ephemeral.to_string(), service.name)));
                        return;
                }
        }
}

// UDP of ports that the kernel gives to any socket which is bound to port 0: who has one at an address of the service
// and connects it takes a client's flow, and who has it at all addresses keeps it from the service's own socket. Not of
// a range that leaves clients no other port.
void warn_of_reserved(const Policy& policy, const Service& service, const HostFacts& host,
                      const std::vector<PortRange>& reserved, std::vector<Diagnostic>& warnings) {
        for (const auto& binding : bindings_in_use(service)) {
                const PortRange given{.first = std::max(binding.ports.first, host.ephemeral.first),
                                      .last = std::min(binding.ports.last, host.ephemeral.last)};
                const bool is_reserved = std::ranges::any_of(reserved, [&](const PortRange& range) {
                        return range.first <= given.first && given.last <= range.last;
                });
                if (binding.protocol == Protocol::kUdp && given.first <= given.last && given != host.ephemeral &&
                    !is_reserved) {
                        warnings.push_back(warning_at(
                                policy, binding.where,
                                fmt::format("ListenDatagram=: the kernel gives {} of service {} to sockets of any user "
                                            "that ask for no port (net.ipv4.ip_local_port_range), which can take a "
                                            "client's flow: add {} to net.ipv4.ip_local_reserved_ports",
                                            given.first == given.last ? "the port" : "ports", service.name,
                                            given.to_string())));
                        return;
                }
        }
}

void warn_of_routes(const Policy& policy, const Service& service, const Covered& local, const std::string& netns,
                    std::vector<Diagnostic>& warnings) {
        const Binding* first = nullptr;
        std::vector<Prefix> missing;  // a prefix may have many bindings, which mostly stand together
        std::size_t more = 0;
        for (const auto& binding : bindings_in_use(service)) {
                if (binding.bare || local.touches(binding.prefix)) {
                        continue;
                }
                constexpr std::size_t kRemembered = 64;
                if (std::ranges::find(missing, binding.prefix) != missing.end()) {
                        continue;
                }
                first = first == nullptr ? &binding : first;
                if (missing.size() < kRemembered) {
                        missing.push_back(binding.prefix);
                } else {
                        more++;
                }
        }
        if (first == nullptr) {
                return;
        }
        const auto others = missing.size() - 1 + more;
        const auto prefix = first->prefix.to_string();
        warnings.push_back(warning_at(
                policy, first->where,
                fmt::format(
                        "{}=: no address of {}{} is local to this host, so that no packet gets to service {} there: "
                        "{}",
                        listen_key(first->protocol), prefix,
                        others == 0 ? "" : fmt::format(" and {} more prefix{}", others, others == 1 ? "" : "es"),
                        service.name, local_route_command(netns, prefix))));
}

// Sockets that two services have bound alike: the kernel lets them stand side by side in one SO_REUSEPORT group alone.
void warn_of_groups(const Policy& policy, const std::vector<RegisteredSocket>& sockets,
                    std::vector<Diagnostic>& warnings) {
        constexpr std::size_t kShown = 10;
        std::map<std::pair<Protocol, Endpoint>, std::set<std::string>> groups;
        for (const auto& socket : sockets) {
                groups[{socket.protocol, socket.bound}].insert(socket.service);
        }
        std::size_t shown = 0;
        for (const auto& [bound, services] : groups) {
                const auto* service = services.size() > 1 ? policy.find(*services.begin()) : nullptr;
                if (service != nullptr && shown++ < kShown) {
                        warnings.push_back(warning_at(
                                policy, service->where,
                                fmt::format(
                                        "services {} have sockets bound to {} {}: they are one SO_REUSEPORT group, in "
                                        "which the kernel may give one what is meant for the other; bind each service "
                                        "to an address of its own (of 127.0.0.0/8; for IPv6 one of fd00::/8 with "
                                        "FreeBind=yes or IPV6_FREEBIND)",
                                        fmt::join(services, " and "), to_string(bound.first),
                                        bound.second.to_string())));
                }
        }
}

// x@.service of x@7.service; of what is no instance the name itself.
std::string template_of(const std::string& name) {
        const auto at = name.find('@');
        const auto dot = name.rfind('.');
        return at == std::string::npos || dot == std::string::npos || dot < at
                       ? name
                       : name.substr(0, at + 1) + name.substr(dot);
}

// The unit's own name, where this is another one: the kernel knows a process of it by that alone. Else empty.
std::string canonical(const std::string& name, const std::map<std::string, std::string>& aliases) {
        if (const auto found = aliases.find(name); found != aliases.end()) {
                return found->second;
        }
        const auto found = aliases.find(template_of(name));
        const auto at = name.find('@');
        if (found == aliases.end() || found->second.find("@.") == std::string::npos) {
                return {};
        }
        const auto instance = name.substr(at + 1, name.rfind('.') - at - 1);
        return std::string(found->second).insert(found->second.find('@') + 1, instance);
}

void warn_of_units(const Policy& policy, const Service& service, const HostFacts& host,
                   std::vector<Diagnostic>& warnings) {
        if (service.units.empty() || std::ranges::any_of(service.units, [&](const Matcher& matcher) {
                    return has_unit(matcher.value, *host.units);
            })) {
                return;
        }
        for (const auto& matcher : service.units) {
                if (const auto own = canonical(matcher.value, host.aliases); !own.empty()) {
                        warnings.push_back(warning_at(
                                policy, matcher.where,
                                fmt::format("Unit=: {} is another name of {} on this host, and a process runs in {} "
                                            "alone, so nobody can register for service {}: write {}",
                                            matcher.value, own, own, service.name, own)));
                        return;
                }
        }
        constexpr std::size_t kShown = 3;
        std::vector<std::string_view> names;
        names.reserve(service.units.size());
        for (const auto& matcher : service.units) {
                names.emplace_back(matcher.value);
        }
        const bool cut = names.size() > kShown;
        names.resize(std::min(names.size(), kShown));
        warnings.push_back(
                warning_at(policy, service.units.front().where,
                           fmt::format("Unit=: this host has no unit {}{} (yet), so nobody can register for service {}",
                                       fmt::join(names, " "), cut ? " ..." : "", service.name)));
}

}  // namespace

std::string local_route_command(const std::string& netns, const std::string& prefix) {
        return fmt::format("ip {}{}{}route add local {} dev lo", netns.empty() ? "" : "-n ", netns,
                           netns.empty() ? "" : " ", prefix);
}

bool has_unit(const std::string& matcher, const std::vector<std::string>& units) {
        return std::ranges::any_of(units, [&](const std::string& unit) {
                return unit_matches(matcher, unit) ||
                       matcher == unit ||  // An instance of a template that is there may be started any time.
                       (unit.find("@.") != std::string::npos && template_of(matcher) == unit);
        });
}

std::vector<Diagnostic> host_warnings(const Policy& policy, const HostFacts& host) {
        std::vector<Diagnostic> warnings;
        const auto local = host.local ? std::optional<Covered>(*host.local) : std::nullopt;
        std::optional<Takeovers> takeovers;
        if (host.listeners) {
                takeovers.emplace(*host.listeners, host);
        }
        for (const auto& service : policy.services) {
                if (takeovers) {
                        for (const auto& binding : bindings_in_use(service)) {
                                takeovers->look_at(service, binding);
                        }
                }
                warn_of_clients(policy, service, host, warnings);
                if (host.reserved) {
                        warn_of_reserved(policy, service, host, *host.reserved, warnings);
                }
                if (local && !service.local_routes) {  // else the broker makes them
                        warn_of_routes(policy, service, *local, host.netns, warnings);
                }
                if (host.units) {
                        warn_of_units(policy, service, host, warnings);
                }
        }
        if (takeovers) {
                takeovers->tell(policy, warnings);
        }
        warn_of_groups(policy, host.registered, warnings);
        return warnings;
}

}  // namespace sockbroker
