// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/checks.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <ranges>
#include <set>
#include <utility>

#include <fmt/format.h>

namespace sockbroker {

namespace {

constexpr std::array kBothFamilies{Family::kIpv4, Family::kIpv6};

struct Counted {
        Where where;
        std::size_t count = 0;
};

struct RunningLimit {
        std::string_view key;
        std::uint32_t running;     // by which the policy is judged
        std::uint32_t configured;  // by which the next start will
};

std::string advice(const RunningLimit& limit, std::size_t total) {
        if (limit.configured >= total) {
                return fmt::format(
                        "with which sockbrokerd was started; sockbrokerd.conf says {} by now, so restart "
                        "sockbrokerd",
                        limit.configured);
        }
        return fmt::format(
                "raise it in section [Broker] of sockbrokerd.conf{} and restart sockbrokerd",
                limit.configured > limit.running
                        ? fmt::format(", which says {} by now and that is too few as well,", limit.configured)
                        : "");
}

struct KeyLine {
        std::string_view key;
        Where where;
};

// Two keys that do not go together, each of which may be without fault in its own file: the error is that of the line
// that came last, and says where the other one is.
void report_pair(const Policy& policy, KeyLine one, KeyLine other, const std::string& what, Findings& findings) {
        const auto& [first, last] =
                std::minmax(one, other, [](const KeyLine& a, const KeyLine& b) { return a.where < b.where; });
        findings.error(last.where, fmt::format("{} ({}= is at {})", what, first.key, policy.location(first.where)));
}

// At the place of the first that is too many, in the order of the text.
void report(std::vector<Counted>& places, const RunningLimit& limit, std::string_view what, Findings& findings) {
        std::size_t total = 0;
        for (const auto& place : places) {
                total += place.count;
        }
        const bool refused = total > limit.running;
        const auto most = refused ? limit.running : limit.configured;
        if (total <= most) {
                return;
        }
        std::ranges::stable_sort(places, {}, &Counted::where);
        std::size_t seen = 0;
        const auto first = std::find_if(places.begin(), places.end(),
                                        [&](const Counted& place) { return (seen += place.count) > most; });
        findings.add(first->where, refused ? Severity::kError : Severity::kWarning, [&] {
                return refused ? fmt::format("{} {} are more than {}={} allows, {}", total, what, limit.key, most,
                                             advice(limit, total))
                               : fmt::format(
                                         "{} {} are more than {}={} of sockbrokerd.conf allows by now: after a restart "
                                         "sockbrokerd will refuse this policy",
                                         total, what, limit.key, most);
        });
}

// Keeps the first of equal values.
template <class Value, class Key, class Report>
void drop_repeated(std::vector<Value>& values, Key key, Report report) {
        std::map<decltype(key(values.front())), Where> first;
        std::erase_if(values, [&](const Value& value) {
                const auto [known, fresh] = first.try_emplace(key(value), value.where);
                if (!fresh) {
                        report(value, known->second);
                }
                return !fresh;
        });
}

void check_families(const Service& service, Findings& findings) {
        for (const auto family : kBothFamilies) {
                if (has_clients(service, family)) {
                        continue;
                }
                const auto first = std::ranges::find(
                        service.bindings, family, [](const Binding& binding) { return binding.prefix.address.family; });
                if (first != service.bindings.end()) {
                        const bool v4 = family == Family::kIpv4;
                        findings.add(first->where, Severity::kWarning, [&] {
                                return fmt::format(
                                        "service {} has Source= for {} only, so its {} bindings match nobody",
                                        service.name, v4 ? "IPv6" : "IPv4", v4 ? "IPv4" : "IPv6");
                        });
                }
        }
}

struct PortLine {
        Where where;
        std::uint16_t port = 0;
        const Service* service = nullptr;

        auto operator<=>(const PortLine&) const = default;  // in the order of the text
};

// The first UDP ports of a service, each once, up to one that is too many for a unit.
std::vector<PortLine> first_udp_ports(const Service& service) {
        std::set<std::uint16_t> seen;
        std::vector<PortLine> first;
        for (const auto& binding : service.bindings) {
                if (binding.protocol == Protocol::kUdp && seen.insert(binding.ports.first).second) {
                        first.push_back({binding.where, binding.ports.first, &service});
                        if (first.size() > kMaxUnitPorts) {
                                break;
                        }
                }
        }
        return first;
}

// By each value of Unit=. A pattern may mean units of which none has all these services; one that several patterns
// match is not looked for.
void check_unit_ports(const Policy& policy, Findings& findings) {
        std::map<std::string_view, std::map<std::uint16_t, PortLine>> units;
        for (const auto& service : policy.services) {
                if (service.udp_reply != UdpReply::kOriginal) {
                        continue;
                }
                const auto ports = first_udp_ports(service);
                for (const auto& matcher : service.units) {
                        auto& of_unit = units[matcher.value];
                        for (const auto& one : ports) {
                                const auto [known, fresh] = of_unit.try_emplace(one.port, one);
                                if (!fresh && one < known->second) {
                                        known->second = one;
                                }
                        }
                }
        }
        for (const auto& [unit, ports] : units) {
                if (ports.size() <= kMaxUnitPorts) {
                        continue;
                }
                std::vector<PortLine> lines;
                std::ranges::copy(ports | std::views::values, std::back_inserter(lines));
                std::ranges::sort(lines);
                const auto& [where, port, service] = lines[kMaxUnitPorts];
                const bool pattern = unit.find_first_of("*?[") != std::string_view::npos;
                findings.add(where, pattern ? Severity::kWarning : Severity::kError, [&] {
                        return fmt::format(
                                "service {} has UdpReply=original, and port {} is one more than the {} UDP ports that "
                                "{}{} can be granted: let another unit have some of them",
                                service->name, port, kMaxUnitPorts, pattern ? "a unit of " : "", unit);
                });
        }
}

}  // namespace

void drop_repeated_matches(Policy& policy, Findings& findings) {
        for (auto& service : policy.services) {
                const auto warn = [&](Where where, std::string_view key, std::string_view value, Where first) {
                        findings.add(where, Severity::kWarning, [&] {
                                return fmt::format("{}={} stands twice in service {}, first at {}", key, value,
                                                   service.name, policy.location(first));
                        });
                };
                for (auto& sources : service.sources) {
                        drop_repeated(
                                sources, [](const Source& source) { return source.prefix; },
                                [&](const Source& source, Where first) {
                                        warn(source.where, "Source", source.prefix.to_string(), first);
                                });
                }
                drop_repeated(
                        service.interfaces, [](const Matcher& interface) { return interface.value; },
                        [&](const Matcher& interface, Where first) {
                                warn(interface.where, "Interface", interface.value, first);
                        });
        }
}

void check_udp_replies(const Policy& policy, Findings& findings) {
        for (const auto& service : policy.services) {
                if (service.udp_reply != UdpReply::kOriginal) {
                        continue;
                }
                const KeyLine udp_reply{"UdpReply", service.last.udp_reply};
                if (service.units.empty()) {
                        const auto what = fmt::format(
                                "service {} has UdpReply=original and no Unit=: the source of answers is set for the "
                                "units that Unit= names and for nobody else",
                                service.name);
                        if (service.last.units < udp_reply.where) {
                                findings.error(udp_reply.where, what);
                        } else {  // an empty Unit=
                                report_pair(policy, udp_reply, {"Unit", service.last.units}, what, findings);
                        }
                }
                if (service.reuse_port) {
                        report_pair(policy, udp_reply, {"ReusePort", service.last.reuse_port},
                                    fmt::format("service {} has UdpReply=original and ReusePort=yes, which leaves the "
                                                "choice to the kernel, so nobody knows which socket answers; take one "
                                                "of the two out",
                                                service.name),
                                    findings);
                }
                for (const auto& binding : service.bindings) {
                        const bool told = binding.bare && binding.prefix.address.family == Family::kIpv6;
                        if (binding.protocol == Protocol::kUdp && binding.ports.first != binding.ports.last && !told) {
                                report_pair(
                                        policy, udp_reply, {"ListenDatagram", binding.where},
                                        fmt::format("service {} has UdpReply=original, and answers leave from the one "
                                                    "port that its socket is bound to: write one port instead of {}",
                                                    service.name, binding.ports.to_string()),
                                        findings);
                        }
                }
        }
        check_unit_ports(policy, findings);
}

void check_services(const Policy& policy, Findings& findings) {
        for (const auto& service : policy.services) {
                if (service.units.empty() && service.users.empty() && service.groups.empty()) {
                        findings.add(service.where, Severity::kWarning, [&] {
                                return fmt::format("service {} has no Unit=, User= or Group= and admits nobody",
                                                   service.name);
                        });
                } else if (service.bindings.empty()) {
                        findings.add(service.where, Severity::kWarning, [&] {
                                return fmt::format(
                                        "service {} has no ListenStream= or ListenDatagram= and receives "
                                        "nothing",
                                        service.name);
                        });
                }
                check_families(service, findings);
        }
}

bool check_limits(const Policy& policy, const PolicyLimits& limits, const PolicyLimits& configured,
                  Findings& findings) {
        std::vector<Counted> services;
        std::size_t written = 0;
        std::size_t meant = 0;
        // One that matches nobody is kept too.
        const auto count = [](const Service& service, const Binding& binding) {
                return std::max<std::size_t>(1, count_client_filters(service, binding.prefix.address.family));
        };
        for (const auto& service : policy.services) {
                if (service.handover == Handover::kShare && service.max_sockets > kMaxSharing) {
                        report_pair(policy, {"MaxSockets", service.last.max_sockets},
                                    {"Handover", service.last.handover},
                                    fmt::format("service {} has MaxSockets={}, with Handover=share it can have no more "
                                                "than {}",
                                                service.name, service.max_sockets, kMaxSharing),
                                    findings);
                }
                if (service.udp_flows == UdpFlows::kStay && service.reuse_port) {
                        report_pair(policy, {"UdpFlows", service.last.udp_flows},
                                    {"ReusePort", service.last.reuse_port},
                                    fmt::format("service {} has UdpFlows=stay and ReusePort=yes, which leaves the "
                                                "choice to the kernel, where no flow stays; take one of the two out",
                                                service.name),
                                    findings);
                }
                services.push_back({service.where, 1});
                written += service.bindings.size();
                for (const auto& binding : service.bindings) {
                        meant += count(service, binding);
                }
        }
        report(services, {"MaxServices", limits.max_services, configured.max_services}, "services", findings);
        std::vector<Counted> accounted;
        for (const auto& service : policy.services) {
                for (const auto& binding : service.bindings) {
                        if (service.accounting == Accounting::kBinding) {
                                accounted.push_back(
                                        {binding.where, count_client_filters(service, binding.prefix.address.family)});
                        }
                }
        }
        report(accounted, {"MaxAccountedBindings", limits.max_accounted, configured.max_accounted},
               "bindings of services with Accounting=binding", findings);
        if (meant <= std::min(limits.max_bindings, configured.max_bindings)) {
                return true;
        }
        std::vector<Counted> bindings;
        bindings.reserve(written);
        for (const auto& service : policy.services) {
                for (const auto& binding : service.bindings) {
                        bindings.push_back({binding.where, count(service, binding)});
                }
        }
        const bool multiplied = meant > written;
        report(bindings, {"MaxBindings", limits.max_bindings, configured.max_bindings},
               multiplied ? "bindings (ports alone count twice, once a family, and each once for every Source= and "
                            "Interface=)"
                          : "bindings (ports alone count twice, once a family)",
               findings);
        return !multiplied || meant <= limits.max_bindings;
}

}  // namespace sockbroker
