// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one step that takes capabilities: programs and maps are made, or taken up and grown, and all of it is pinned for
// a broker that has none. A process of its own under the units (sockbrokerd --load), which ends before the broker is
// started; a broker that is started with capabilities, by hand, does both.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/daemon/options.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/notify_filter.h"
#include "broker/policy/files.h"

namespace sockbroker {

// sockbrokerd --load. Where a broker serves it does nothing: that one has loaded what it needs.
[[nodiscard]] Result<void> run_load(const DaemonOptions& options);

struct OpenedDataplane {
        BrokerConfig config;
        std::string mistakes;  // in the files of that, for status; empty: none
        std::unique_ptr<Dataplane> dataplane;
        std::optional<NotifyFilter> filter;  // none: it could not be loaded
        std::vector<std::string> notes;      // what an operator is to know of it
};
// For the broker itself. This process has no capability afterwards, in any set that it may change.
[[nodiscard]] Result<OpenedDataplane> open_dataplane(const DaemonOptions& options);

}  // namespace sockbroker
