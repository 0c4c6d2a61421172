// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether lookups come to the dispatch program still. Somebody may detach it while the broker runs, which has no
// capability to attach it again: so it says so, and the next one does. And whether the network namespace that is served
// was removed (ip netns delete). It ends when nothing of it is open any more: so the broker must let go of it. And
// whether dispatch will outlive this broker.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

#include "broker/audit/audit.h"
#include "broker/daemon/policy_status.h"
#include "broker/dataplane/dataplane.h"

namespace sockbroker {

class Attachment {
public:
        // `netns`: of the namespace, as `ip netns` knows it; empty: it has no name, or this process is in it, and so
        // it cannot end.
        Attachment(const Dataplane& dataplane, Audit& audit, std::string netns)
                : dataplane_(dataplane), audit_(audit), netns_(std::move(netns)) {}

        // Asks the kernel. The journal has what is wrong, once. To be called every second or so.
        void look();
        [[nodiscard]] bool is_lost() const { return lost_since_usec_ != 0; }
        // Its name stands for nothing any more, or for another one.
        [[nodiscard]] bool is_removed() const { return removed_since_usec_ != 0; }
        // Status as it is then: degraded, whatever the policy is.
        void tell(PolicyStatus& status) const;

private:
        void look_at_name();
        [[nodiscard]] std::string why() const;

        const Dataplane& dataplane_;
        Audit& audit_;
        std::string netns_;
        ino_t inode_ = 0;  // 0: the name was never seen to stand for the namespace that is served
        std::int64_t removed_since_usec_ = 0;
        std::int64_t lost_since_usec_ = 0;
        std::int64_t unpinned_since_usec_ = 0;
};

}  // namespace sockbroker
