// SPDX-License-Identifier: LGPL-2.1-or-later
//
// PID=: a request that one process makes for another, whose sockets they are. Believed only as far as the kernel says
// that the two are one to the broker anyway, so that it says which process is meant and never who may do what.
#pragma once

#include <expected>

#include "broker/peer/peer.h"

namespace sockbroker {

// The process `pid` as who asks: of the sender's own unit (both in none counts too) and, unless that is root, of its
// real uid and gid. Otherwise not-permitted: root in a unit of its own, maybe without any capability, is not admitted
// to what is for another unit. A sender that names itself is itself.
[[nodiscard]] std::expected<Peer, Refusal> on_behalf_of(const Peer& sender, pid_t pid);

// A pidfd of the process that a request is of: the sender's, or the one that it named. None: it is gone, or nobody can
// tell.
[[nodiscard]] OwnedFd process_of(const Message& message, const Peer& peer);

}  // namespace sockbroker
