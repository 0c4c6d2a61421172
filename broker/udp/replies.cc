// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/udp/replies.h"

#include <algorithm>
#include <cerrno>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/policy/checks.h"
#include "broker/policy/still_admitted.h"
#include "broker/policy/values.h"
#include "broker/udp/unit_cgroup.h"

namespace sockbroker {

static_assert(kMaxUnitPorts == UnitPrograms::kMaxPorts);

namespace {

bool names(const Service& service, std::string_view unit) {
        return service.udp_reply == UdpReply::kOriginal &&
               std::ranges::any_of(service.units,
                                   [&](const Matcher& matcher) { return unit_matches(matcher.value, unit); });
}

// By its own name: which of those that a pattern means there are only PID 1 knows.
bool is_socket_unit(std::string_view name) {
        return name.ends_with(".socket") && name.find_first_of("*?[") == std::string_view::npos &&
               !name.ends_with("@.socket");
}

}  // namespace

GrantedPorts granted_ports(const std::vector<const Service*>& services) {
        std::set<std::uint16_t> ports, left_out;
        for (const auto* service : services) {
                for (const auto& binding : service->bindings) {
                        const auto port = binding.ports.first;  // no range: an error of the policy
                        if (binding.protocol == Protocol::kUdp && !ports.contains(port)) {
                                (ports.size() < UnitPrograms::kMaxPorts ? ports : left_out).insert(port);
                        }
                }
        }
        return {.ports = {ports.begin(), ports.end()}, .left_out = {left_out.begin(), left_out.end()}};
}

std::string text_of_left_out(std::string_view unit, const GrantedPorts& granted) {
        constexpr std::size_t kShown = 10;
        const auto& all = granted.left_out;
        const auto shown = std::span(all).first(std::min(all.size(), kShown));
        return fmt::format(
                "{} has {} UDP ports by UdpReply=original, and no unit can have more: it may not bind {}{}; "
                "let another unit have some of them",
                unit, granted.ports.size(), fmt::join(shown, " "),
                all.size() > kShown ? fmt::format(" and {} more", all.size() - kShown) : "");
}

bool UdpReplies::has_programs(const std::string& unit) const {
        return std::ranges::any_of(programs_.attached(), [&](const auto& entry) { return entry.second.name == unit; });
}

void UdpReplies::note(OfCgroup& all, const std::string& service, const Peer& peer) {
        if (const auto known = std::ranges::find(all, service, &Admitted::service); known != all.end()) {
                known->peer = peer;
        } else {
                all.push_back({.service = service, .peer = peer});
        }
}

GrantedPorts UdpReplies::granted(const Policy& policy, const OfCgroup& all) {
        std::vector<const Service*> services;
        for (const auto& one : all) {
                if (const auto* service = policy.find(one.service)) {
                        services.push_back(service);
                }
        }
        return granted_ports(services);
}

Result<GrantedPorts> UdpReplies::attach(const Policy& policy, const std::string& unit, pid_t pid,
                                        const Service& service, const Peer& peer) {
        const auto cgroup = open_unit_cgroup(unit, pid);
        if (!cgroup) {
                return std::unexpected(cgroup.error());
        }
        auto& known = admitted_[cgroup->id];
        auto all = known;
        note(all, service.name, peer);
        auto ports = granted(policy, all);
        if (auto done = programs_.attach(cgroup->directory.get(), cgroup->id, {.name = unit, .ports = ports.ports});
            !done) {
                return std::unexpected(done.error());
        }
        known = std::move(all);
        return ports;
}

Result<GrantedPorts> UdpReplies::prepare(const Policy& policy, const Service& service, const Peer& peer) {
        for (const auto& matcher : service.units) {
                if (is_socket_unit(matcher.value) && matcher.value != peer.unit) {
                        (void)attach(policy, matcher.value, 0, service, peer);  // there may be none
                }
        }
        return attach(policy, peer.unit, peer.pid, service, peer);
}

// Of units that have the programs. Of those that a broker before this one has given them, nothing else is known.
void UdpReplies::note_registrants(const Policy& policy, const Registry& registry) {
        std::multimap<std::string, std::uint64_t> cgroups;
        for (const auto& [id, unit] : programs_.attached()) {
                cgroups.emplace(unit.name, id);
        }
        for (const auto& service : policy.services) {
                if (cgroups.empty() || service.udp_reply != UdpReply::kOriginal) {
                        continue;
                }
                const auto note_in = [&](const std::string& unit, const Peer& owner) {
                        for (auto [one, end] = cgroups.equal_range(unit); one != end; ++one) {
                                note(admitted_[one->second], service.name, owner);
                        }
                };
                for (const auto& one : registry.registrations(service.name)) {
                        const Peer& owner = one.registrant;
                        if (one.protocol != Protocol::kUdp || !names(service, owner.unit)) {
                                continue;
                        }
                        note_in(owner.unit, owner);
                        for (const auto& matcher : service.units) {
                                if (is_socket_unit(matcher.value) && matcher.value != owner.unit) {
                                        note_in(matcher.value, owner);
                                }
                        }
                }
        }
}

void UdpReplies::take_from_unadmitted(const Policy& policy, const Accounts& accounts) {
        std::map<const Service*, StillAdmitted> services;
        const auto is_no_more = [&](const Admitted& one, const std::string& unit) {
                const auto* service = policy.find(one.service);
                return service == nullptr || !names(*service, unit) ||
                       !services.try_emplace(service, *service, accounts).first->second.admits(one.peer);
        };
        const auto attached = programs_.attached();  // it changes meanwhile
        for (const auto& entry : attached) {
                auto& all = admitted_[entry.first];
                std::erase_if(all, [&](const Admitted& one) { return is_no_more(one, entry.second.name); });
                if (all.empty()) {
                        programs_.detach(entry.first);
                }
        }
        forget_detached();
}

void UdpReplies::forget_detached() {
        std::erase_if(admitted_, [&](const auto& entry) { return !programs_.attached().contains(entry.first); });
}

void UdpReplies::give_to_registrants(const Policy& policy, const Registry& registry,
                                     std::vector<std::string>& failures) {
        std::set<std::string> tried;
        for (const auto& service : policy.services) {
                if (service.udp_reply != UdpReply::kOriginal) {
                        continue;
                }
                for (const auto& one : registry.registrations(service.name)) {
                        const Peer& owner = one.registrant;
                        if (one.protocol != Protocol::kUdp || !names(service, owner.unit) || has_programs(owner.unit) ||
                            !tried.insert(owner.unit).second) {
                                continue;
                        }
                        // A one-shot unit that has handed over what PID 1 had made is gone, and not the one that
                        // answers.
                        const bool of_socket_unit = std::ranges::any_of(service.units, [&](const Matcher& matcher) {
                                return is_socket_unit(matcher.value) && has_programs(matcher.value);
                        });
                        if (auto done = prepare(policy, service, owner); !done && !of_socket_unit) {
                                failures.push_back(fmt::format("answers of {} keep the address of its socket: {}",
                                                               service.name, done.error().text()));
                        }
                }
        }
}

void UdpReplies::grant(const Policy& policy, std::vector<std::string>& failures) {
        for (const auto& [id, all] : admitted_) {
                const auto unit = programs_.attached().find(id);
                if (unit == programs_.attached().end()) {
                        continue;
                }
                const auto name = unit->second.name;
                const auto ports = granted(policy, all);
                if (auto done = programs_.describe(id, {.name = name, .ports = ports.ports});
                    !done && done.error().errnum != ENOENT) {
                        failures.push_back(done.error().text());
                }
                if (!ports.left_out.empty()) {
                        failures.push_back(text_of_left_out(name, ports));
                }
        }
}

std::vector<std::string> UdpReplies::follow(const Policy& policy, const Accounts& accounts, const Registry& registry) {
        std::vector<std::string> failures;
        note_registrants(policy, registry);
        take_from_unadmitted(policy, accounts);
        give_to_registrants(policy, registry, failures);
        note_registrants(policy, registry);  // of the units that have got them now, for each of their services
        grant(policy, failures);
        return failures;
}

void UdpReplies::sweep_if_due(std::uint64_t now_usec) {
        if (now_usec - swept_usec_ >= kSweepUsec) {
                programs_.drop_gone();
                forget_detached();
                swept_usec_ = now_usec;
        }
}

}  // namespace sockbroker
