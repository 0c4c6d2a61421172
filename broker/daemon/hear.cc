// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/hear.h"

#include <syslog.h>

#include <fmt/format.h>

#include "broker/base/printable.h"

namespace sockbroker {

void hear(NotifyFilter& filter, Audit& audit, const hands::Party& party, bool heard) {
        const bool is_group = !party.group.empty();
        const auto who = is_group ? printable(party.group) : fmt::format("uid {}", party.uid);
        if (heard) {
                const auto dropped = is_group ? filter.hear_group(party.group) : filter.hear(party.uid);
                audit.note(LOG_NOTICE,
                           fmt::format("{} is heard on notify again; {} of its messages were dropped", who, dropped));
                return;
        }
        if (is_group) {
                filter.silence_group(party.group);
        } else {
                filter.silence(party.uid);
        }
        audit.note(LOG_WARNING,
                   fmt::format("messages of {} to notify are dropped until descriptors that it has sent are closed, "
                               "which takes long: it has its share of what can wait for that",
                               who));
}

}  // namespace sockbroker
