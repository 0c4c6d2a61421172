// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is said of Interface= that depends on the host; asked once for each name. A warning and nothing more: an
// interface that does not exist yet will, and then counts.
#include <map>

#include <fmt/format.h>

#include "broker/policy/decide.h"

namespace sockbroker {

std::vector<Diagnostic> unknown_interfaces(const Policy& policy, const InterfaceLookup& index_of) {
        std::map<std::string, std::uint32_t, std::less<>> known;
        std::vector<Diagnostic> warnings;
        for (const auto& service : policy.services) {
                for (const auto& interface : service.interfaces) {
                        const auto [found, fresh] = known.try_emplace(interface.value, 0);
                        if (fresh) {
                                found->second = index_of(interface.value);
                        }
                        if (found->second != 0 && found->second <= kMaxInterfaceIndex) {
                                continue;
                        }
                        const auto why = found->second == 0
                                                 ? std::string("does not exist on this host (yet)")
                                                 : fmt::format(
                                                           "has the index {} and rules hold {} at most, make it anew "
                                                           "with a smaller one (ip link add ... index N)",
                                                           found->second, kMaxInterfaceIndex);
                        warnings.push_back(
                                {policy.files.at(interface.where.file), interface.where.line, Severity::kWarning,
                                 fmt::format("Interface=: {} {}, so it matches nobody", interface.value, why)});
                }
        }
        return warnings;
}

Interfaces find_interfaces(const Policy& policy, const InterfaceLookup& index_of) {
        Interfaces found;
        for (const auto& service : policy.services) {
                for (const auto& interface : service.interfaces) {
                        if (!found.contains(interface.value)) {
                                const auto index = index_of(interface.value);
                                found.emplace(interface.value, index <= kMaxInterfaceIndex ? index : 0);
                        }
                }
        }
        // Two names of one index: one was renamed between the two lookups. Neither counts until the next look.
        std::map<std::uint32_t, unsigned> owners;
        for (const auto& [name, index] : found) {
                owners[index]++;
        }
        for (auto& [name, index] : found) {
                index = owners[index] == 1 ? index : 0;
        }
        return found;
}

}  // namespace sockbroker
