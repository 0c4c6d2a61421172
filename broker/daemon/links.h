// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How the broker comes to see the interfaces of the network namespace that it serves, from one of its own that has
// none: another process (sockbrokerd --links, of sockbrokerd-links.service) makes two netlink sockets there, before
// each start, and leaves them in a UNIX socket that PID 1 passes on. A netlink socket belongs to the namespace in which
// it was made.
#pragma once

#include <cstdint>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/options.h"

namespace sockbroker {

inline constexpr const char* kLinksName = "links";  // of the UNIX socket, and of its descriptor

// sockbrokerd --links.
[[nodiscard]] Result<void> run_links(const DaemonOptions& options);

struct NetnsSockets {
        OwnedFd watch;  // hears of interfaces that come, go or are renamed
        OwnedFd ask;
        std::uint64_t cookie = 0;  // of the network namespace that is served
};
// From what PID 1 has passed, which stays open. None was passed: the namespace of this process, and no sockets.
[[nodiscard]] Result<NetnsSockets> take_netns_sockets();

}  // namespace sockbroker
