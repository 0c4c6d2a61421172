// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The command line of sockbrokerd.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker/base/directories.h"

namespace sockbroker {

// The directories are those of --netns, of --config-dir (then one directory) and the like, or the default ones.
struct DaemonOptions : Directories {
        bool load = false;   // the programs, and no more
        bool links = false;  // leave sockets for the broker, and no more
        std::string netns;   // of --netns; empty: the one in which it was started, whatever its name

        [[nodiscard]] std::string pin_dir() const { return bpffs + "/dispatch"; }
        [[nodiscard]] std::string policy_copy() const { return state_dir + "/policy"; }
        [[nodiscard]] std::string trial_record() const { return state_dir + "/trial"; }
};

// Prints help, version or a usage error itself; the result is then empty and `exit_status` set.
[[nodiscard]] std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_status);

}  // namespace sockbroker
