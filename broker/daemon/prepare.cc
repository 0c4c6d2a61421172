// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpReply=original: when units get the programs that set the source of their answers, and what is told of it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "broker/daemon/broker.h"

namespace sockbroker {

Result<void> Broker::prepare_replies(const Service& service, const Peer& peer, std::span<const SocketFacts> sockets) {
        const bool asks = service.udp_reply == UdpReply::kOriginal &&
                          std::ranges::any_of(
                                  sockets, [](const SocketFacts& socket) { return socket.protocol == Protocol::kUdp; });
        return asks ? replies_.prepare(*policy_, service, peer) : Result<void>{};
}

std::string Broker::tell_no_replies(const Service& service, const Peer& peer, const Error& error) {
        auto text = fmt::format(
                "answers of service {} over UDP leave from the address that its socket is bound to, although policy "
                "says "
                "UdpReply=original: {}",
                service.name, error.text());
        audit_.write({.action = Action::kDiagnostic,
                      .priority = 4,
                      .message = text,
                      .service = service.name,
                      .unit = peer.unit,
                      .has_peer = true,
                      .uid = peer.uid,
                      .pid = peer.pid});
        return text;
}

void Broker::prepare(const Request& request, const Peer& peer, const Reply& reply) {
        when_admitted(
                request.service, peer, 0, reply,
                [this](const Admission& admission, const Peer& admitted, const Reply& answered) {
                        const Service& service = *admission.service;
                        if (service.udp_reply != UdpReply::kOriginal) {
                                return answered(
                                        {.message = fmt::format("{} needs no preparation: it has no UdpReply=original",
                                                                service.name)});
                        }
                        if (auto done = replies_.prepare(*policy_, service, admitted); !done) {
                                return answered(refuse(
                                        {ResultCode::kInternal, tell_no_replies(service, admitted, done.error()), {}},
                                        admitted, service.name));
                        }
                        answered({.message = fmt::format(
                                          "{} may bind UDP ports {} on loopback addresses, and its answers leave "
                                          "from the addresses that clients ask",
                                          admitted.unit, fmt::join(granted_ports(*policy_, admitted.unit), " "))});
                });
}

void Broker::follow_replies() {
        for (auto& failure : replies_.follow(*policy_, registry_)) {
                note(4, std::move(failure));
        }
}

}  // namespace sockbroker
