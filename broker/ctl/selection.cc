// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See selection.h.
#include "broker/ctl/selection.h"

#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <string_view>

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

bool overlap(const Prefix& one, const Prefix& other) {
        return one.length <= other.length ? one.contains(other.address) : other.contains(one.address);
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
        return takes_binding(cell(row, "service", ""), cell(row, "prefix", ""));
}

bool Selection::takes_binding(const std::string& service, std::string_view prefix) const {
        if (takes_service(service)) {
                return true;
        }
        if (prefixes_.empty()) {
                return false;
        }
        const auto covered = prefix_of(prefix);
        return !covered ||
               std::ranges::any_of(prefixes_, [&](const Prefix& asked) { return overlap(asked, *covered); });
}

std::vector<std::string> Selection::missing(const std::vector<std::string>& services) const {
        std::vector<std::string> result;
        std::ranges::copy_if(names_, std::back_inserter(result), [&](const std::string& name) {
                return std::ranges::none_of(services, [&](const auto& service) { return matches(name, service); });
        });
        return result;
}

}  // namespace sockbroker::ctl
