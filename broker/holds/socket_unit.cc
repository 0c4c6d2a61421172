// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/socket_unit.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

namespace sockbroker {

namespace {

// Of an IPv6 socket that is bound to a v4-mapped address: the IPv4 address, which has one spelling only.
Endpoint without_mapping(Endpoint endpoint) {
        constexpr std::size_t kIpv4At = 12;
        auto& [address, port] = endpoint;
        const auto bytes = std::span(address.bytes);
        const bool mapped = address.family == Family::kIpv6 && bytes[10] == 0xff && bytes[11] == 0xff &&
                            std::ranges::all_of(bytes.first(10), [](std::uint8_t byte) { return byte == 0; });
        if (!mapped) {
                return endpoint;
        }
        Endpoint plain{.address = {.family = Family::kIpv4, .bytes = {}}, .port = port};
        std::ranges::copy(bytes.subspan(kIpv4At), plain.address.bytes.begin());
        return plain;
}

std::optional<Endpoint> endpoint_of(std::string_view text) {
        constexpr std::string_view kMapped = "[::ffff:";
        text = text.substr(0, text.find('%'));  // the interface of a link-local address
        std::string plain(text);
        const auto close = plain.find(']');
        if (text.starts_with(kMapped) && close != std::string::npos && plain.find('.') < close) {
                plain.erase(close, 1).erase(0, kMapped.size());
        }
        const auto parsed = parse_endpoint(plain);
        return parsed ? std::optional(*parsed) : std::nullopt;
}

bool may_be_bound_to(const Listening& listening, Protocol protocol, const Endpoint& bound) {
        const std::string_view address = listening.address;
        const bool fits = listening.type == (protocol == Protocol::kTcp ? "Stream" : "Datagram");
        if (!fits || address.starts_with('/') || address.starts_with('@') || address.starts_with("vsock")) {
                return false;
        }
        const auto endpoint = endpoint_of(address);
        return !endpoint || without_mapping(*endpoint) == without_mapping(bound);
}

}  // namespace

bool may_have_opened(std::span<const Listening> listens, Protocol protocol, const Endpoint& bound) {
        return listens.empty() || std::ranges::any_of(listens, [&](const Listening& one) {
                       return may_be_bound_to(one, protocol, bound);
               });
}

}  // namespace sockbroker
