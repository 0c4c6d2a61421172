// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where things lie unless the command line says otherwise, the same for the daemon and the tool: those of the machine's
// own broker, or of the one in a named network namespace (ip-netns(8)). Names only, no look at what is there.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"

namespace sockbroker {

struct DefaultPlaces {
        std::vector<std::string> config_dirs{"/etc/sockbroker", "/run/sockbroker", "/usr/local/lib/sockbroker",
                                             "/usr/lib/sockbroker"};
        std::string runtime_dir = "/run/sockbroker";
        std::string bpffs = "/run/sockbroker/bpf";
        std::string state_dir = "/var/lib/sockbroker";

        // Whatever is not empty in `named` counts instead.
        void override_by(const DefaultPlaces& named);
};

// Each place's folder netns/NAME. Errors: a name that a unit, a path or a bpffs would not take as it stands.
[[nodiscard]] Result<DefaultPlaces> places_of_netns(std::string_view name);

}  // namespace sockbroker
