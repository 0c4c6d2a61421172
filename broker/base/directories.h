// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The directories of a broker unless the command line says otherwise, the same for the daemon and the tools: those of
// the machine's own broker, or of the one in a named network namespace (ip-netns(8)). Pure: nothing is opened.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"

namespace sockbroker {

struct Directories {
        std::vector<std::string> config_dirs{"/etc/sockbroker", "/run/sockbroker", "/usr/local/lib/sockbroker",
                                             "/usr/lib/sockbroker"};
        std::string runtime_dir = "/run/sockbroker";
        std::string bpffs = "/run/sockbroker/bpf";
        std::string state_dir = "/var/lib/sockbroker";

        // Whatever is not empty in `named` counts instead.
        void override_by(const Directories& named);
};

// Each directory's directory netns/NAME. Errors: a name that a unit, a path or a bpffs would not take as it stands.
[[nodiscard]] Result<Directories> directories_of_netns(std::string_view name);

}  // namespace sockbroker
