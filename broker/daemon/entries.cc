// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/entries.h"

#include <utility>

#include <fmt/format.h>

namespace sockbroker {

Entry entry_of(Action action, const std::string& service, const Registration& registration) {
        return Entry{.action = action,
                     .service = service,
                     .cookie = registration.cookie,
                     .protocol = std::string(to_string(registration.protocol)),
                     .bound = registration.bound.to_string(),
                     .unit = registration.registrant.unit,
                     .has_peer = true,
                     .uid = registration.registrant.uid,
                     .pid = registration.registrant.pid};
}

Entry entry_by(const Peer& peer, Action action, int priority, const std::string& service, std::string message) {
        return Entry{.action = action,
                     .priority = priority,
                     .message = std::move(message),
                     .service = service,
                     .unit = peer.unit,
                     .has_peer = true,
                     .uid = peer.uid,
                     .pid = peer.pid};
}

std::string socket_name(const Registration& registration) {
        return fmt::format("{} socket {}", to_string(registration.protocol), registration.bound.to_string());
}

}  // namespace sockbroker
