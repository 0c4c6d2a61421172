// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-run's words with the broker: retrieve what it holds, register what there is. Each answer is the broker's;
// nothing is asked twice.
#pragma once

#include <expected>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/run/sockets.h"

namespace sockbroker::launcher {

// Why the program is not run: the exit status, and what to tell the person.
struct Failure {
        int status = kExitFailed;
        std::string message;
};

// Which sockets are registered for which service, by index, in the order of the first of each. Pure. One that is named
// after a service of the command line is that service's; all others are the one service's that --service= names. With
// none they are their own name's, if that can be a service: not "unknown", which sd_listen_fds_with_names(3) says of
// one without a name, and no other name that systemd gives by itself, where FileDescriptorName= is missing.
[[nodiscard]] std::vector<std::pair<std::string, std::vector<std::size_t>>> hand_out(
        const std::vector<std::string>& names, const Options& options);

// Why a socket that was passed under this name is registered for no service, and what to do if it should be; empty: no
// more than to be expected. Pure.
[[nodiscard]] std::string why_left_out(const std::string& name, const Options& options);

// The sockets that the broker holds for the services that are named, none if it holds none. They are then live, and
// this process's.
[[nodiscard]] std::expected<std::vector<NamedFd>, Failure> retrieve(const Options& options);

// Lets the unit bind the UDP ports of the service on loopback, where policy says so (UdpReply=original). False: it is
// not to be.
[[nodiscard]] bool prepare(const Options& options, const std::string& service);

// Registers those that are not yet, all of a service in one request.
[[nodiscard]] std::expected<void, Failure> hand_over(const Options& options, std::vector<NamedFd>& sockets);

}  // namespace sockbroker::launcher
