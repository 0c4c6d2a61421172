// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which of the sockets that systemd passed go to which service. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/base/result.h"

namespace sockbroker::ctl {

struct PassedFd {
        int fd = -1;
        std::string name;  // of LISTEN_FDNAMES
};

struct Handout {
        std::string service;
        std::vector<int> fds;
        std::vector<std::string> names;  // under which they were passed, each once
};

// With a service all sockets go to it; without one each name is a service, in the order of their first sockets. Names
// that cannot be services are an error that tells about FileDescriptorName=.
[[nodiscard]] Result<std::vector<Handout>> hand_out(const std::vector<PassedFd>& passed, std::string_view service);

// What to add when the broker refuses a socket that was passed under this name, empty if nothing: a name that systemd
// gives by itself tells what was forgotten.
[[nodiscard]] std::string name_hint(std::string_view name);

}  // namespace sockbroker::ctl
