// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether a socket is one that PID 1 has opened for a .socket unit. All that can be known of it is where it is bound:
// PID 1 binds to what it says the unit listens on, and nobody binds there beside it but for SO_REUSEPORT. Pure.
#pragma once

#include <span>
#include <string>

#include "broker/base/net.h"

namespace sockbroker {

// One entry of the property Listen of org.freedesktop.systemd1.Socket, as PID 1 writes it: "Stream" and "127.0.0.1:80",
// "[::]:80", "[fe80::1]:80%eth0", "/run/web.sock", "@abstract", "vsock:2:80".
struct Listening {
        std::string type;
        std::string address;
};

// Whether one that listens on these may have opened it: also where it says nothing, or what is not understood.
[[nodiscard]] bool may_have_opened(std::span<const Listening> listens, Protocol protocol, const Endpoint& bound);

}  // namespace sockbroker
