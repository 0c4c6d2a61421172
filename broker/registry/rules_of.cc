// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The two pure translations between what the broker keeps and what the kernel is told: a policy to rules, the
// registrations of a service to its targets.
#include "broker/base/huge_pages.h"
#include "broker/policy/conflicts.h"
#include "broker/registry/registry.h"

#include <algorithm>

namespace sockbroker {

namespace {

Absent absent_of(WhenAbsent when_absent) {
        switch (when_absent) {
        case WhenAbsent::kPass:
                return Absent::kPass;
        case WhenAbsent::kNext:
                return Absent::kNext;
        default:
                return Absent::kRefuse;
        }
}

}  // namespace

std::vector<Rule> rules_of(const Policy& policy, const std::function<ServiceId(const std::string&)>& id_of,
                           const Interfaces& interfaces, std::span<const std::uint32_t> counters) {
        std::size_t bindings = 0;
        for (const auto& service : policy.services) {
                for (const auto& binding : service.bindings) {
                        bindings += count_client_filters(service, binding.prefix.address.family);
                }
        }
        std::vector<Rule> rules;
        rules.reserve(bindings);
        prefer_huge_pages(rules.data(), bindings * sizeof(Rule));
        for (const auto& service : policy.services) {
                const Rule common{.service = id_of(service.name), .absent = absent_of(service.when_absent)};
                std::vector<std::uint32_t> indexes;
                for (const auto& interface : service.interfaces) {
                        const auto found = interfaces.find(interface.value);
                        indexes.push_back(found == interfaces.end() ? 0 : found->second);
                }
                for (const auto& binding : service.bindings) {
                        const auto family = binding.prefix.address.family;
                        const std::size_t matches = count_client_filters(service, family);
                        for (std::size_t n = 0; n < matches; n++) {
                                std::uint32_t counter = 0;
                                if (service.accounting == Accounting::kBinding) {
                                        counter = counters.front();
                                        counters = counters.subspan(1);
                                }
                                const std::uint32_t ifindex = indexes.empty() ? 0 : indexes[n % indexes.size()];
                                if (ifindex == 0 && !indexes.empty()) {
                                        continue;  // no packet comes in there
                                }
                                const auto client = client_filter_at(service, family, n);
                                Rule& rule = rules.emplace_back(common);
                                rule.protocol = binding.protocol;
                                rule.prefix = binding.prefix;
                                rule.ports = binding.ports;
                                rule.ifindex = ifindex;
                                rule.counter = counter;
                                if (client.source != nullptr) {
                                        rule.source = *client.source;
                                }
                        }
                }
        }
        return rules;
}

std::vector<std::uint64_t> counted_bindings(const Policy& policy) {
        std::vector<std::uint64_t> all;
        for (const auto& service : policy.services) {
                if (service.accounting != Accounting::kBinding) {
                        continue;
                }
                for (const auto& binding : service.bindings) {
                        const auto family = binding.prefix.address.family;
                        for (std::size_t n = 0; n < count_client_filters(service, family); n++) {
                                all.push_back(identity_of(service, binding, client_filter_at(service, family, n)));
                        }
                }
        }
        return all;
}

bool is_before(const Registration& one, const Registration& other) {
        return one.held() != other.held() ? other.held() : one.since_usec > other.since_usec;
}

bool is_owner(const Peer& peer, const Registration& registration) {
        const auto& owner = registration.registrant;
        return owner.unit.empty() && peer.unit.empty() ? owner.uid == peer.uid
                                                       : !peer.unit.empty() && owner.unit == peer.unit;
}

bool is_succeeded(const Registration& held, const Peer& peer, std::span<const Offer> offers,
                  Distribution distribution) {
        if (!held.held() || (distribution.share && !is_owner(peer, held))) {
                return false;
        }
        const auto served = [&](Family family) {
                return std::ranges::any_of(offers, [&](const Offer& offer) {
                        return !offer.inherit && offer.facts.protocol == held.protocol &&
                               (family == Family::kIpv4 ? offer.serves.ipv4 : offer.serves.ipv6);
                });
        };
        return (!held.serves.ipv4 || served(Family::kIpv4)) && (!held.serves.ipv6 || served(Family::kIpv6));
}

Targets targets_of(std::span<const Registration> in_order, Distribution distribution) {
        Targets targets;
        targets.share = distribution.share;
        targets.reuse_port = distribution.reuse_port;
        targets.stay = distribution.stay;
        targets.reply = distribution.reply;
        const std::size_t most = distribution.share ? kMaxShared : kReserveDepth;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        auto& slots =
                                targets.slots[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)];
                        bool served = false;  // by one whose service lives
                        for (const auto& registration : in_order) {
                                if (slots.size() == most || !registration.serves_in(protocol, family) ||
                                    (distribution.share && registration.held() && served)) {
                                        continue;
                                }
                                served = served || !registration.held();
                                slots.push_back(registration.slot);
                        }
                }
        }
        return targets;
}

const Registration* first_choice(std::span<const Registration> in_order, Protocol protocol, Family family) {
        const auto found = std::ranges::find_if(
                in_order, [&](const Registration& one) { return one.serves_in(protocol, family); });
        return found == in_order.end() ? nullptr : &*found;
}

std::span<const Registration> behind(const Cursor& cursor, std::span<const Registration> in_order) {
        const auto first = std::ranges::partition_point(in_order, [&](const Registration& one) {
                return one.held() != cursor.held ? cursor.held : one.since_usec >= cursor.since_usec;
        });
        return in_order.subspan(static_cast<std::size_t>(first - in_order.begin()));
}

bool is_live(std::span<const Registration> in_order, Distribution distribution, const Registration& one) {
        return std::ranges::any_of(std::array{Family::kIpv4, Family::kIpv6}, [&](Family family) {
                return one.serves_in(one.protocol, family) &&
                       (distribution.share || first_choice(in_order, one.protocol, family)->slot == one.slot);
        });
}

Serving::Serving(std::span<const Registration> in_order, Distribution distribution) : share_(distribution.share) {
        for (const auto& one : in_order) {
                auto& [ipv4, ipv6] = first_[static_cast<std::size_t>(one.protocol)];
                if (one.serves.ipv4 && ipv4 == 0) {
                        ipv4 = one.slot;
                }
                if (one.serves.ipv6 && ipv6 == 0) {
                        ipv6 = one.slot;
                }
        }
}

bool Serving::is_live(const Registration& one) const {
        const auto& [ipv4, ipv6] = first_[static_cast<std::size_t>(one.protocol)];
        return (one.serves.ipv4 && (share_ || ipv4 == one.slot)) || (one.serves.ipv6 && (share_ || ipv6 == one.slot));
}

}  // namespace sockbroker
