// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The directory of --config-dir= or --root=, as the verbs look at it that read policies themselves.
#pragma once

#include <string>

#include "broker/ctl/options.h"

namespace sockbroker::ctl {

// What is wrong with it, empty if nothing. One that is not there is empty to the broker; one that was named is a slip
// of the pen, and so is a policy file, or the conf.d itself.
[[nodiscard]] std::string slip_of_named(const Options& options);

}  // namespace sockbroker::ctl
