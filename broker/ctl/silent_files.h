// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Policy files on a file system that does not answer (NFS without its server, FUSE). A process of its own reads them
// first, so that no verb hangs for the sake of one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker/ctl/in_time.h"
#include "broker/ctl/options.h"
#include "broker/policy/diagnostic.h"

namespace sockbroker::ctl {

// How long files and names may take: --timeout=, or the short one.
[[nodiscard]] std::chrono::microseconds patience_of(const Options& options);

// The first that has not answered by then; none: all can be read now, or what is wrong with one is soon known. `named`:
// instead of the policies of the directories.
[[nodiscard]] std::optional<Diagnostic> first_silent(const std::vector<std::string>& config_dirs,
                                                     const std::vector<std::string>& named, Deadline deadline);

}  // namespace sockbroker::ctl
