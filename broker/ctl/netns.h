// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Network namespaces by the names that `ip netns` knows. For a process of one thread.
#pragma once

#include <string>
#include <string_view>

namespace sockbroker::ctl {

// Whether this process is in the network namespace of that name now: it was, or root has let it in. What it asks the
// kernel from then on is asked of there.
[[nodiscard]] bool enter_netns(const std::string& name);

// The same with the broker's, by the cookie that it tells (hexadecimal), where that is the one of `name` or, if there
// is none, of PID 1: as systemctl reload, this may run in the broker's own, which is empty.
[[nodiscard]] bool enter_netns_of_broker(const std::string& name, std::string_view cookie);

}  // namespace sockbroker::ctl
