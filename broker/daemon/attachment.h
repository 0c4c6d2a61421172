// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether lookups come to the dispatch program still. Somebody may detach it while the broker runs, which has no
// capability to attach it again: so it says so, and the next one does.
#pragma once

#include <cstdint>

#include "broker/audit/audit.h"
#include "broker/daemon/policy_status.h"
#include "broker/dataplane/dataplane.h"

namespace sockbroker {

class Attachment {
public:
        Attachment(const Dataplane& dataplane, Audit& audit) : dataplane_(dataplane), audit_(audit) {}

        // Asks the kernel. The journal has that it is lost, once. To be called every second or so.
        void look();
        [[nodiscard]] bool is_lost() const { return lost_since_usec_ != 0; }
        // Status as it is where nothing is dispatched: degraded, whatever the policy is.
        void tell(PolicyStatus& status) const;

private:
        const Dataplane& dataplane_;
        Audit& audit_;
        std::int64_t lost_since_usec_ = 0;
};

}  // namespace sockbroker
