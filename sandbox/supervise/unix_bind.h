// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A bind of a UNIX socket to a path, as the program would have made it: from its working directory, with its umask.
#pragma once

#include <functional>
#include <span>

#include "sandbox/supervise/plan.h"
#include "sandbox/supervise/target.h"

namespace sockbroker::supervise {

// Whether the address names a file: neither abstract nor without a name.
[[nodiscard]] bool names_file(std::span<const std::byte> address);

// The errno, 0: done. EACCES where the program's root is another one: a path would mean something else here.
// `still_waits` is asked when all that is the program's was looked at, and before anything is made; if it does not,
// EINTR. The name of a socket whose path leads through /proc/self is the last component alone.
[[nodiscard]] int bind_unix(int fd, const SocketAddress& address, const Target& target,
                            const std::function<bool()>& still_waits);

}  // namespace sockbroker::supervise
