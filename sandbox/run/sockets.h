// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets of a service: taken over from whoever started it, made, and passed on to the program, each with its name.
// Owns their descriptors; knows nothing of the broker.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "sandbox/run/options.h"

namespace sockbroker::launcher {

struct NamedFd {
        OwnedFd fd;
        std::string name;         // of LISTEN_FDNAMES
        bool registered = false;  // the broker has it already
};

// What sd_listen_fds(3) says was passed; none is no error.
[[nodiscard]] Result<std::vector<NamedFd>> take_passed();

// Bound as the broker's documentation wants it: SO_REUSEPORT, so that the next instance can join the group, and IPv6
// alone. A datagram socket of IPv6 gets IPV6_FREEBIND, without which its answers could not leave from the addresses
// that were asked, and which the program in the sandbox cannot set.
[[nodiscard]] Result<NamedFd> make_socket(const Listen& listen, const std::string& name);

// An IP socket; all else that was passed is the program's alone.
[[nodiscard]] bool is_ip_socket(int fd);

// Puts them at 3 and up, open across execve(2), closes all others above, and says so in LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES. Nothing of this process uses another descriptor after it.
[[nodiscard]] Result<void> pass_on(std::vector<NamedFd>& sockets);

}  // namespace sockbroker::launcher
