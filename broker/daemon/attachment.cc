// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/attachment.h"

#include <string>

#include "broker/base/wall_clock.h"

namespace sockbroker {

namespace {

constexpr const char* kLost =
        "nothing is dispatched: somebody has detached the dispatch program from this network namespace (bpftool link "
        "detach?); systemctl restart sockbrokerd attaches it again";

}  // namespace

void Attachment::look() {
        if (dataplane_.is_attached()) {
                lost_since_usec_ = 0;
        } else if (!is_lost()) {
                lost_since_usec_ = wall_usec();
                audit_.note(2, kLost);
        }
}

void Attachment::tell(PolicyStatus& status) const {
        if (!is_lost()) {
                return;
        }
        const bool was_degraded = !status.degraded.empty();
        status.degrade(was_degraded ? std::string(kLost) + "; " + status.degraded : kLost);
        if (!was_degraded) {
                status.degraded_since_usec = lost_since_usec_;
        }
}

}  // namespace sockbroker
