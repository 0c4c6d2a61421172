// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/socket_unit.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>

namespace sockbroker {

namespace {

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
        return !endpoint || *endpoint == Endpoint{unmapped(bound.address), bound.port};
}

}  // namespace

bool may_have_opened(std::span<const Listening> listens, Protocol protocol, const Endpoint& bound) {
        return listens.empty() || std::ranges::any_of(listens, [&](const Listening& one) {
                       return may_be_bound_to(one, protocol, bound);
               });
}

}  // namespace sockbroker
