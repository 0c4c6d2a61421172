// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Facts of this host that a policy may conflict with: listeners, addresses, local routes, units. Asked of the
// kernel and of PID 1, without privilege and by nobody but the tool: the broker's loop has no part in it. What cannot
// be asked is not known, and nothing is said of it.
#pragma once

#include <vector>

#include "broker/ctl/options.h"
#include "broker/policy/diagnostic.h"
#include "broker/policy/host_warnings.h"
#include "broker/policy/policy.h"

namespace sockbroker::ctl {

// host_warnings() of this host, the first of each file. None where this process is not in the network namespace of the
// broker that the options mean, or they name its sockets and not its policies.
// `ask_units`: PID 1, which takes a moment.
[[nodiscard]] std::vector<Diagnostic> warnings_of_host(const Options& options, const Policy& policy, bool ask_units);

// The same of the policy on disk, where it is not so large that a reader of `status` would have to wait. With a digest:
// if it is that one, otherwise that it is not; and PID 1 is not asked, for `status` is often called.
[[nodiscard]] std::vector<Diagnostic> warnings_of_disk(const Options& options, std::string_view digest);

}  // namespace sockbroker::ctl
