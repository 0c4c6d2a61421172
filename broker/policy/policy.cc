// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/policy.h"

#include <algorithm>

#include <fmt/format.h>

namespace sockbroker {

std::string_view listen_key(Protocol protocol) {
        return protocol == Protocol::kTcp ? "ListenStream" : "ListenDatagram";
}

std::string_view to_string(WhenAbsent value) {
        switch (value) {
        case WhenAbsent::kPass:
                return "pass";
        case WhenAbsent::kNext:
                return "next";
        default:
                return "refuse";
        }
}

std::string_view to_string(Accounting value) {
        return value == Accounting::kBinding ? "binding" : "service";
}

std::string_view to_string(Handover value) {
        switch (value) {
        case Handover::kShare:
                return "share";
        case Handover::kRefuse:
                return "refuse";
        default:
                return "replace";
        }
}

std::string_view to_string(UdpReply value) {
        return value == UdpReply::kOriginal ? "original" : "no";
}

std::string_view to_string(UdpFlows value) {
        return value == UdpFlows::kStay ? "stay" : "no";
}

std::string_view to_string(Announce value) {
        switch (value) {
        case Announce::kAny:
                return "any";
        case Announce::kAll:
                return "all";
        default:
                return "no";
        }
}

bool covers(const Prefix& prefix, const Address& address) {
        const unsigned least = address.family == Family::kIpv4 ? 8 : 16;
        return prefix.contains(address) && (prefix.length >= least || !is_loopback(address));
}

const Service* Policy::find(std::string_view name) const {
        const auto found =
                std::lower_bound(services.begin(), services.end(), name,
                                 [](const Service& service, std::string_view key) { return service.name < key; });
        return found != services.end() && found->name == name ? &*found : nullptr;
}

std::string Policy::location(Where where) const {
        const auto& file = files.at(where.file);
        return where.line == 0 ? file : fmt::format("{}:{}", file, where.line);
}

}  // namespace sockbroker
