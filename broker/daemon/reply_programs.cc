// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/reply_programs.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/daemon/entries.h"

namespace sockbroker {

Result<void> ReplyPrograms::prepare(const Service& service, const Peer& peer, std::span<const SocketFacts> sockets) {
        const bool asks = service.udp_reply == UdpReply::kOriginal &&
                          std::ranges::any_of(
                                  sockets, [](const SocketFacts& socket) { return socket.protocol == Protocol::kUdp; });
        return asks ? replies_.prepare(*policy_, service, peer) : Result<void>{};
}

std::string ReplyPrograms::tell_none(const Service& service, const Peer& peer, const Error& error) {
        auto text = fmt::format(
                "answers of service {} over UDP leave from the address that its socket is bound to, although policy "
                "says UdpReply=original: {}",
                service.name, error.text());
        entries_.write(entry_by(peer, Action::kDiagnostic, 4, service.name, text));
        return text;
}

Answer ReplyPrograms::prepare(const Admission& admission, const Peer& peer) {
        const Service& service = *admission.service;
        if (service.udp_reply != UdpReply::kOriginal) {
                return {.message = fmt::format("{} needs no preparation: it has no UdpReply=original", service.name)};
        }
        if (auto done = replies_.prepare(*policy_, service, peer); !done) {
                return refusals_.refuse({ResultCode::kInternal, tell_none(service, peer, done.error()), {}}, peer,
                                        service.name);
        }
        return {.message = fmt::format("{} may bind UDP ports {} on loopback addresses, and its answers leave from the "
                                       "addresses that clients ask",
                                       peer.unit, fmt::join(granted_ports(*policy_, peer.unit), " "))};
}

void ReplyPrograms::follow_policy() {
        for (auto& failure : replies_.follow(*policy_, registry_)) {
                audit_.note(4, std::move(failure));
        }
}

}  // namespace sockbroker
