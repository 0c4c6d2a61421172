// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Network namespaces by the names that `ip netns` knows. For a process of one thread.
#pragma once

#include <string>

namespace sockbroker::ctl {

// Whether this process is in the network namespace of that name now: it was, or root has let it in. What it asks the
// kernel from then on is asked of there.
[[nodiscard]] bool enter_netns(const std::string& name);

}  // namespace sockbroker::ctl
