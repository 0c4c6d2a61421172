// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Entries of the journal as the broker makes most of them: of a registration, or of what a peer has asked for.
#pragma once

#include <string>

#include "broker/audit/audit.h"
#include "broker/peer/peer.h"
#include "broker/registry/registry.h"

namespace sockbroker {

// Without a message.
[[nodiscard]] Entry entry_of(Action action, const std::string& service, const Registration& registration);

[[nodiscard]] Entry entry_by(const Peer& peer, Action action, int priority, const std::string& service,
                             std::string message);

// "tcp socket 192.0.2.1:80"
[[nodiscard]] std::string socket_name(const Registration& registration);

}  // namespace sockbroker
