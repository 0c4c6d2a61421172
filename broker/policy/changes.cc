// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/changes.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>
#include <tuple>

namespace sockbroker {

namespace {

using Kind = BindingChange::Kind;

// All that makes a binding, but not whose it is.
struct Identity {
        const Binding* binding = nullptr;
        ClientFilter client;

        // One of length 0 is any client.
        [[nodiscard]] Prefix source() const {
                return client.source == nullptr || client.source->length == 0 ? Prefix{} : *client.source;
        }
        [[nodiscard]] std::string_view interface() const {
                return client.interface == nullptr ? std::string_view() : std::string_view(client.interface->value);
        }
        [[nodiscard]] auto tie() const {
                return std::tuple(binding->protocol, binding->prefix, binding->ports, source(), interface());
        }
};

std::uint64_t hashed(std::uint64_t hash, std::uint64_t word) {
        hash = (hash ^ word) * 0x9e3779b97f4a7c15U;
        return hash ^ hash >> 32;
}

std::uint64_t hashed(std::uint64_t hash, const Prefix& prefix) {
        std::uint64_t halves[2] = {};
        std::memcpy(halves, prefix.address.bytes.data(), sizeof halves);
        hash = hashed(hash, prefix.length * 2U + static_cast<unsigned>(prefix.address.family));
        return hashed(hashed(hash, halves[0]), halves[1]);
}

struct Entry {
        std::uint64_t hash = 0;
        BindingReference at;
};

Identity identity_at(const Policy& policy, const BindingReference& at) {
        const Service& service = policy.services[at.service];
        const Binding& binding = service.bindings[at.binding];
        return {&binding, client_filter_at(service, binding.prefix.address.family, at.client)};
}

// Sorted by what they are, each once: one that stands twice in a service is one.
std::vector<Entry> entries_of(const Policy& policy) {
        std::vector<Entry> result;
        for (std::uint32_t s = 0; s < policy.services.size(); s++) {
                const Service& service = policy.services[s];
                for (std::uint32_t b = 0; b < service.bindings.size(); b++) {
                        const Binding& binding = service.bindings[b];
                        const auto matches = static_cast<std::uint32_t>(
                                count_client_filters(service, binding.prefix.address.family));
                        for (std::uint32_t m = 0; m < matches; m++) {
                                const BindingReference at{s, b, m};
                                const Identity identity = identity_at(policy, at);
                                std::uint64_t hash = hashed(static_cast<unsigned>(binding.protocol), binding.prefix);
                                hash = hashed(hash, binding.ports.first * 65536U + binding.ports.last);
                                hash = hashed(hash, identity.source());
                                hash = hashed(hash, std::hash<std::string_view>{}(identity.interface()));
                                result.push_back({hash, at});
                        }
                }
        }
        std::ranges::sort(result, [&](const Entry& one, const Entry& other) {
                return one.hash != other.hash ? one.hash < other.hash
                                              : identity_at(policy, one.at).tie() < identity_at(policy, other.at).tie();
        });
        const auto twice = std::ranges::unique(result, [&](const Entry& one, const Entry& other) {
                return one.hash == other.hash &&
                       identity_at(policy, one.at).tie() == identity_at(policy, other.at).tie();
        });
        result.erase(twice.begin(), twice.end());
        return result;
}

std::vector<std::string> texts_of(const std::vector<Matcher>& matchers) {
        std::vector<std::string> values;
        values.reserve(matchers.size());
        for (const auto& matcher : matchers) {
                values.push_back(matcher.value);
        }
        std::ranges::sort(values);
        return values;
}

std::vector<std::string> changed_keys(const Service& before, const Service& after) {
        std::vector<std::string> keys;
        const auto note = [&](const char* key, bool changed) {
                if (changed) {
                        keys.emplace_back(key);
                }
        };
        note("Unit", texts_of(before.units) != texts_of(after.units));
        note("User", texts_of(before.users) != texts_of(after.users));
        note("Group", texts_of(before.groups) != texts_of(after.groups));
        note("WhenAbsent", before.when_absent != after.when_absent);
        note("Handover", before.handover != after.handover);
        note("Accounting", before.accounting != after.accounting);
        note("ReusePort", before.reuse_port != after.reuse_port);
        note("LocalRoutes", before.local_routes != after.local_routes);
        note("Announce", before.announce != after.announce);
        note("HoldSec", before.hold_usec != after.hold_usec);
        note("UdpReply", before.udp_reply != after.udp_reply);
        note("UdpFlows", before.udp_flows != after.udp_flows);
        note("MaxSockets", before.max_sockets != after.max_sockets);
        return keys;
}

// On the side that a change is of.
const BindingReference& place_of(const BindingChange& change) {
        return change.kind == Kind::kRemoved ? change.before : change.after;
}

auto order_of(const BindingChange& change, const Policy& before, const Policy& after) {
        const auto& at = place_of(change);
        return std::tuple(std::string_view((change.kind == Kind::kRemoved ? before : after).services[at.service].name),
                          change.kind, at.binding, at.client);
}

// What bare ports mean in IPv6 is left out where what they mean in IPv4, the binding before it, has changed alike.
void join_families(const Policy& before, const Policy& after, std::vector<BindingChange>& changes) {
        const auto order = [&](const BindingChange& change) { return order_of(change, before, after); };
        const auto twin_of = [&](const BindingChange& change) {
                const auto& at = place_of(change);
                const auto& service = (change.kind == Kind::kRemoved ? before : after).services[at.service];
                const auto& binding = service.bindings[at.binding];
                if (!binding.bare || binding.prefix.address.family != Family::kIpv6 || !any_source(service)) {
                        return changes.end();
                }
                auto wanted = change;
                (change.kind == Kind::kRemoved ? wanted.before : wanted.after).binding--;
                const auto found = std::ranges::lower_bound(changes, order(wanted), {}, order);
                return found != changes.end() && order(*found) == order(wanted) &&
                                       (change.kind != Kind::kMoved || found->before.service == change.before.service)
                               ? found
                               : changes.end();
        };
        std::vector<bool> doubled(changes.size());
        for (std::size_t i = 0; i < changes.size(); i++) {
                if (const auto twin = twin_of(changes[i]); twin != changes.end()) {
                        twin->both_families = true;
                        doubled[i] = true;
                }
        }
        std::size_t i = 0;
        std::erase_if(changes, [&](const BindingChange&) { return doubled[i++]; });
}

}  // namespace

PolicyChanges changes_between(const Policy& before, const Policy& after) {
        PolicyChanges result;
        const auto old_entries = entries_of(before), new_entries = entries_of(after);
        auto old_at = old_entries.begin();
        auto new_at = new_entries.begin();
        while (old_at != old_entries.end() || new_at != new_entries.end()) {
                const bool old_first =
                        new_at == new_entries.end() ||
                        (old_at != old_entries.end() &&
                         (old_at->hash < new_at->hash ||
                          (old_at->hash == new_at->hash &&
                           identity_at(before, old_at->at).tie() < identity_at(after, new_at->at).tie())));
                const bool new_first =
                        !old_first && (old_at == old_entries.end() || new_at->hash < old_at->hash ||
                                       identity_at(after, new_at->at).tie() < identity_at(before, old_at->at).tie());
                if (old_first) {
                        result.bindings.push_back({Kind::kRemoved, (old_at++)->at, {}});
                } else if (new_first) {
                        result.bindings.push_back({Kind::kAdded, {}, (new_at++)->at});
                } else {
                        if (before.services[old_at->at.service].name != after.services[new_at->at.service].name) {
                                result.bindings.push_back({Kind::kMoved, old_at->at, new_at->at});
                        }
                        ++old_at;
                        ++new_at;
                }
        }
        std::ranges::sort(result.bindings, {}, [&](const BindingChange& one) { return order_of(one, before, after); });
        join_families(before, after, result.bindings);
        for (const Service& service : after.services) {
                if (const Service* old = before.find(service.name)) {
                        if (auto keys = changed_keys(*old, service); !keys.empty()) {
                                result.settings.push_back({service.name, std::move(keys)});
                        }
                }
        }
        return result;
}

}  // namespace sockbroker
