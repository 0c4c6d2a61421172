// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Descriptors as systemd passes them, sd_listen_fds(3): taken over from whoever started this process, and passed on to
// the program that it becomes, each with its name.
#pragma once

#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

struct NamedFd {
        OwnedFd fd;
        std::string name;         // of LISTEN_FDNAMES
        bool registered = false;  // the broker has it already
};

// What sd_listen_fds(3) says was passed; none is no error.
[[nodiscard]] Result<std::vector<NamedFd>> take_passed();

// Puts them at 3 and up, open across execve(2), closes all others above, and says so in LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES; LISTEN_PIDFDID is unset. Nothing of this process uses another descriptor after it, but `keep`, which
// lies above those passed on.
[[nodiscard]] Result<void> pass_on(std::vector<NamedFd>& sockets, int keep = -1);

}  // namespace sockbroker
