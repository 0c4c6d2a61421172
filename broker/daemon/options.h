// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The command line of sockbrokerd.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sockbroker {

struct DaemonOptions {
        std::vector<std::string> config_dirs;  // the four folders, or the one of --config-dir
        std::string runtime_dir = "/run/sockbroker";
        std::string bpffs = "/run/sockbroker/bpf";
        std::string state_dir = "/var/lib/sockbroker";

        [[nodiscard]] std::string pin_dir() const { return bpffs + "/dispatch"; }
        [[nodiscard]] std::string policy_copy() const { return state_dir + "/policy"; }
};

// Prints help, version or a usage error itself; the result is then empty and `exit_status` set.
[[nodiscard]] std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_status);

}  // namespace sockbroker
