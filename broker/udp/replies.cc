// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/udp/replies.h"

#include <algorithm>
#include <cerrno>
#include <set>

#include <fmt/format.h>

#include "broker/policy/values.h"
#include "broker/udp/unit_cgroup.h"

namespace sockbroker {

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

bool has_replies(const Policy& policy, std::string_view unit) {
        return std::ranges::any_of(policy.services, [&](const Service& service) { return names(service, unit); });
}

std::vector<std::uint16_t> granted_ports(const Policy& policy, std::string_view unit) {
        std::set<std::uint16_t> ports;
        for (const auto& service : policy.services) {
                if (!names(service, unit)) {
                        continue;
                }
                for (const auto& binding : service.bindings) {
                        if (binding.protocol == Protocol::kUdp && ports.size() < UnitPrograms::kMaxPorts) {
                                ports.insert(binding.ports.first);  // no range: an error of the policy
                        }
                }
        }
        return {ports.begin(), ports.end()};
}

bool UdpReplies::has_programs(const std::string& unit) const {
        return std::ranges::any_of(programs_.attached(), [&](const auto& entry) { return entry.second.name == unit; });
}

Result<void> UdpReplies::attach(const Policy& policy, const std::string& unit, pid_t pid) {
        const auto cgroup = open_unit_cgroup(unit, pid);
        if (!cgroup) {
                return std::unexpected(cgroup.error());
        }
        return programs_.attach(cgroup->directory.get(), cgroup->id,
                                {.name = unit, .ports = granted_ports(policy, unit)});
}

Result<void> UdpReplies::prepare(const Policy& policy, const Service& service, const Peer& peer) {
        for (const auto& matcher : service.units) {
                if (is_socket_unit(matcher.value) && matcher.value != peer.unit) {
                        (void)attach(policy, matcher.value, 0);  // there may be none
                }
        }
        return attach(policy, peer.unit, peer.pid);
}

std::vector<std::string> UdpReplies::follow(const Policy& policy, const Registry& registry) {
        std::vector<std::string> failures;
        const auto attached = programs_.attached();  // it changes meanwhile
        for (const auto& [id, unit] : attached) {
                if (!has_replies(policy, unit.name)) {
                        programs_.detach(id);
                } else if (auto done = programs_.describe(
                                   id, {.name = unit.name, .ports = granted_ports(policy, unit.name)});
                           !done && done.error().errnum != ENOENT) {
                        failures.push_back(done.error().text());
                }
        }
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
        return failures;
}

void UdpReplies::sweep_if_due(std::uint64_t now_usec) {
        if (now_usec - swept_usec_ >= kSweepUsec) {
                programs_.drop_gone();
                swept_usec_ = now_usec;
        }
}

}  // namespace sockbroker
