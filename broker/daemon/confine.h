// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The broker gives up all that it does not need any more, between set-up and the first message: the files that are not
// its own (Landlock) and the system calls that run time does without (sandbox/broker.profile, which is built in: a
// broker must not depend on a file to be safe). There is no way to turn it off.
#pragma once

#include <string>

#include "broker/base/result.h"
#include "broker/daemon/options.h"

namespace sockbroker {

// For all threads that are made from now on, and for good; call it when capabilities are dropped and before there is
// another thread. The result says what this kernel does not have of it, for the journal; empty: all is in force. An
// error: system calls could not be restricted, and the broker must not start. after_upgrade: rules of an earlier layout
// of the pinned maps are in force, and the broker has to put programs into links when there are new ones.
[[nodiscard]] Result<std::string> confine(const DaemonOptions& options, bool after_upgrade);

// The system call filter as it is built in, for a person to read.
[[nodiscard]] Result<std::string> describe_filter();

}  // namespace sockbroker
