// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/reply_programs.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/daemon/entries.h"

namespace sockbroker {

Result<GrantedPorts> ReplyPrograms::prepare(const Service& service, const Peer& peer,
                                            std::span<const SocketFacts> sockets) {
        const bool asks = service.udp_reply == UdpReply::kOriginal &&
                          std::ranges::any_of(
                                  sockets, [](const SocketFacts& socket) { return socket.protocol == Protocol::kUdp; });
        return asks ? replies_.prepare(*policy_, service, peer) : Result<GrantedPorts>{};
}

std::optional<std::string> ReplyPrograms::tell(const Service& service, const Peer& peer,
                                               const Result<GrantedPorts>& prepared) {
        if (prepared && prepared->left_out.empty()) {
                return std::nullopt;
        }
        auto text = prepared ? text_of_left_out(peer.unit, *prepared)
                             : fmt::format(
                                       "answers of service {} over UDP leave from the address that its socket is "
                                       "bound to, although policy says UdpReply=original: {}",
                                       service.name, prepared.error().text());
        entries_.write(entry_by(peer, Action::kDiagnostic, 4, service.name, text));
        return text;
}

Answer ReplyPrograms::prepare(const Admission& admission, const Peer& peer) {
        const Service& service = *admission.service;
        if (service.udp_reply != UdpReply::kOriginal) {
                return {.message = fmt::format("{} needs no preparation: it has no UdpReply=original", service.name)};
        }
        const auto prepared = replies_.prepare(*policy_, service, peer);
        auto wrong = tell(service, peer, prepared);
        if (!prepared) {
                return refusals_.refuse({ResultCode::kInternal, wrong.value_or(std::string()), {}}, peer, service.name);
        }
        Answer answer{.message = fmt::format("{} may bind UDP ports {} on loopback addresses, and its answers leave "
                                             "from the addresses that clients ask",
                                             peer.unit, fmt::join(prepared->ports, " "))};
        if (wrong) {
                answer.warnings.push_back(std::move(*wrong));
        }
        return answer;
}

void ReplyPrograms::follow_policy(const Accounts& accounts) {
        for (auto& failure : replies_.follow(*policy_, accounts, registry_)) {
                audit_.note(4, std::move(failure));
        }
}

}  // namespace sockbroker
