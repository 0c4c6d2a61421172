// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Interface=: what its names mean now. The rules follow, where one means another interface.
#include "broker/base/interface_index.h"
#include "broker/daemon/change.h"
#include "broker/daemon/reloads.h"

namespace sockbroker {

std::uint64_t Reloads::refresh_interfaces() {
        if (changing_) {
                interfaces_changed_ = true;  // since those were looked up
                return interfaces_took_usec_;
        }
        interfaces_changed_ = true;  // until there is a change for that
        const auto change = std::make_shared<Change>();
        interfaces_changed_ = false;
        change->kind = Change::Kind::kInterfaces;
        change->policy = policy_.shared();
        begin(change, &Reloads::find_interfaces_again);
        return interfaces_took_usec_;
}

// Outside the loop: the kernel's lock of all interfaces is kept for long where any user takes down thousands of his
// own.
void Reloads::find_interfaces_again(const ChangePtr& change) {
        in_worker(change, &Reloads::find_interfaces_job, &Reloads::install_if_moved);
}

void Reloads::find_interfaces_job(Change& change) const {
        change.interfaces = find_interfaces(*change.policy, interfaces_now());
}

void Reloads::install_if_moved(const ChangePtr& change) {
        if (change->interfaces != policy_.interfaces()) {
                return install(change);
        }
        interfaces_took_usec_ = 0;
        change->over = true;
        changing_ = false;
        begin_what_waits();
}

}  // namespace sockbroker
