// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/precedence.h"

#include <algorithm>
#include <tuple>

namespace sockbroker {

namespace {

// Smaller goes first: longest destination, narrower ports, longest source, a named interface before any.
std::tuple<int, unsigned, int, bool> rank(const MetBinding& met) {
        return {-int{met.binding->prefix.length}, met.binding->ports.width(),
                met.client.source == nullptr ? 0 : -int{met.client.source->length}, met.client.interface == nullptr};
}

bool goes_before(const MetBinding& one, const MetBinding& other) {
        return rank(one) < rank(other);
}

}  // namespace

MetBindings bindings_met(const Policy& policy, const Interfaces& interfaces, const Packet& packet, std::size_t most) {
        MetBindings result;
        const Address& to = packet.to.address;
        const auto add = [&](const Service& service, const Binding& binding) {
                for (std::size_t n = 0; n < count_client_filters(service, to.family); n++) {
                        const MetBinding met{&service, &binding, client_filter_at(service, to.family, n)};
                        if (met.client.source != nullptr && met.client.source->length > 0) {
                                if (!packet.from) {
                                        result.depends_on_source = true;
                                        continue;
                                }
                                if (!met.client.source->contains(*packet.from)) {
                                        continue;
                                }
                        }
                        if (met.client.interface != nullptr) {
                                const auto index = interfaces.find(met.client.interface->value);
                                const bool known = index != interfaces.end() && index->second != 0;
                                if (!known || index->second != packet.ifindex) {
                                        result.depends_on_interface =
                                                result.depends_on_interface || (known && packet.ifindex == 0);
                                        continue;
                                }
                        }
                        result.first.push_back(met);
                }
        };
        for (const Service& service : policy.services) {
                if (!service.used[static_cast<std::size_t>(packet.protocol)][static_cast<std::size_t>(to.family)]) {
                        continue;
                }
                for (const Binding& binding : service.bindings) {
                        if (binding.protocol == packet.protocol && binding.prefix.address.family == to.family &&
                            binding.ports.contains(packet.to.port) && covers(binding.prefix, to)) {
                                add(service, binding);
                        }
                }
        }
        std::ranges::stable_sort(result.first, goes_before);
        const auto twice = std::ranges::unique(result.first, [](const MetBinding& one, const MetBinding& other) {
                return one.service == other.service && rank(one) == rank(other);
        });
        result.first.erase(twice.begin(), twice.end());
        if (result.first.size() > most) {
                result.more = result.first.size() - most;
                result.first.resize(most);
        }
        return result;
}

}  // namespace sockbroker
