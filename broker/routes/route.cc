// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/route.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace sockbroker::routes {

namespace {

struct Reserved {
        Prefix prefix;
        std::string_view what;
};

Prefix make(Family family, std::initializer_list<std::uint8_t> bytes, std::uint8_t length) {
        Prefix prefix{.address = {.family = family, .bytes = {}}, .length = length};
        std::ranges::copy(bytes, prefix.address.bytes.begin());
        return prefix;
}

// Where a route of the broker could only break what the machine does for itself.
const std::array kReserved{
        Reserved{make(Family::kIpv4, {0}, 8), "means this host"},
        Reserved{make(Family::kIpv4, {127}, 8), "is the loopback network"},
        Reserved{make(Family::kIpv4, {224}, 4), "is multicast"},
        Reserved{make(Family::kIpv4, {255, 255, 255, 255}, 32), "is the broadcast address"},
        Reserved{make(Family::kIpv6, {0, 0, 0, 0, 0, 0, 0, 0}, 64),
                 "holds the loopback address, the unspecified one and those that stand for IPv4"},
        Reserved{make(Family::kIpv6, {0xfe, 0x80}, 10), "is of each link's own"},
        Reserved{make(Family::kIpv6, {0xff}, 8), "is multicast"},
};

bool overlap(const Prefix& one, const Prefix& other) {
        return one.contains(other.address) || other.contains(one.address);
}

}  // namespace

std::string_view to_string(Kind kind) {
        return kind == Kind::kLocal ? "local" : "announce";
}

std::string why_unroutable(const Prefix& prefix) {
        const auto family = prefix.address.family;
        if (prefix.length > address_bits(family)) {
                return fmt::format("/{} is longer than an address", prefix.length);
        }
        if (prefix.length < shortest_route(family)) {
                return fmt::format("it is shorter than /{}", shortest_route(family));
        }
        if (masked(prefix.address, prefix.length) != prefix.address) {
                return "it has bits of a host";
        }
        const auto found = std::ranges::find_if(
                kReserved, [&](const Reserved& reserved) { return overlap(prefix, reserved.prefix); });
        return found == kReserved.end() ? std::string() : fmt::format("{} {}", found->prefix.to_string(), found->what);
}

}  // namespace sockbroker::routes
