// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the broker lives: its two sockets, passed by systemd or made here, and its directory of pins on a bpffs. All
// that needs privilege beyond loading happens here, once, before anything is dropped.
#pragma once

#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/options.h"

namespace sockbroker {

// What PID 1 passed beside the two sockets.
struct StoredFd {
        std::string name;
        OwnedFd fd;
};

struct IntakeSockets {
        OwnedFd notify;                   // datagram
        OwnedFd control;                  // seqpacket, listening
        OwnedFd labels;                   // the same for tubular's clients; none: nobody has enabled that
        std::vector<StoredFd> stored;     // IP sockets: what an earlier broker left with PID 1
        std::vector<StoredFd> strangers;  // nothing of the broker's; close(2) of them may wait for who knows whom
};

// Those that systemd passed, told apart by what they are, whatever their names (but for `labels`); or, if it passed
// none, new ones in the runtime directory. What else was passed is no reason not to start.
[[nodiscard]] Result<IntakeSockets> open_intake_sockets(const std::string& runtime_dir);

// That the process is in the network namespace of --netns, if one was named and /run/netns can be seen.
[[nodiscard]] Result<void> check_netns(const std::string& name);

// Under systemd StateDirectory= has made it.
[[nodiscard]] Result<void> make_state_dir(const std::string& state_dir);

// The pin directory, made if it is missing; mounts a bpffs where there is none and the process may. The result holds
// a lock on it that ends with the process: one broker for one directory.
[[nodiscard]] Result<OwnedFd> open_pin_dir(const DaemonOptions& options);

}  // namespace sockbroker
