// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See selection.h.
#include "broker/ctl/selection.h"

#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "broker/policy/policy.h"

namespace sockbroker::ctl {

namespace {

// An address, or ADDRESS/LEN, also with brackets; host bits may be set, for a person means the network.
std::optional<Prefix> prefix_of(std::string_view text) {
        const auto slash = text.rfind('/');
        auto host = text.substr(0, slash);
        if (host.starts_with('[') && host.ends_with(']')) {
                host = host.substr(1, host.size() - 2);
        }
        const auto address = parse_address(host);
        if (!address) {
                return std::nullopt;
        }
        std::uint64_t length = address_bits(address->family);
        if (slash != std::string_view::npos) {
                const auto given = parse_number(text.substr(slash + 1), length);
                if (!given) {
                        return std::nullopt;
                }
                length = *given;
        }
        const auto bits = static_cast<unsigned>(length);
        return Prefix{masked(*address, bits), static_cast<std::uint8_t>(bits)};
}

// Whether a binding covers some address of what is asked for. Where it contains that, its first address tells: either
// all of it is of the loopback network, or that one is not.
bool covers_some(const Prefix& binding, const Prefix& asked) {
        return binding.length <= asked.length ? covers(binding, asked.address) : asked.contains(binding.address);
}

// Ports alone; with a source they are for its family.
bool covers_some(std::string_view source, const Prefix& asked) {
        const auto family = asked.address.family;
        const auto clients = prefix_of(source);
        return (!clients || clients->address.family == family) && covers_some(Prefix{{.family = family}, 0}, asked);
}

bool matches(const std::string& pattern, const std::string& name) {
        return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

}  // namespace

bool is_prefix(std::string_view text) {
        return prefix_of(text).has_value();
}

Selection Selection::of_bindings(const std::vector<std::string>& arguments) {
        Selection result({});
        for (const auto& argument : arguments) {
                if (const auto prefix = prefix_of(argument)) {
                        result.prefixes_.push_back(*prefix);
                } else {
                        result.names_.push_back(argument);
                }
        }
        return result;
}

bool Selection::takes_service(const std::string& name) const {
        return all() || std::ranges::any_of(names_, [&](const auto& pattern) { return matches(pattern, name); });
}

bool Selection::takes_binding(const Json& row) const {
        return takes_binding(cell(row, "service", ""), cell(row, "prefix", ""), cell(row, "source", ""));
}

bool Selection::takes_binding(const std::string& service, std::string_view prefix, std::string_view source) const {
        if (takes_service(service)) {
                return true;
        }
        const auto covered = prefix_of(prefix);
        return std::ranges::any_of(prefixes_, [&](const Prefix& asked) {
                return covered ? covers_some(*covered, asked) : covers_some(source, asked);
        });
}

std::vector<std::string> Selection::missing(const std::vector<std::string>& services) const {
        std::vector<std::string> result;
        std::ranges::copy_if(names_, std::back_inserter(result), [&](const std::string& name) {
                return std::ranges::none_of(services, [&](const auto& service) { return matches(name, service); });
        });
        return result;
}

}  // namespace sockbroker::ctl
