// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Waiting until every run of the dispatch program that may still see the old state is over. The program runs under RCU,
// so this is an RCU grace period, asked for without any capability.
#pragma once

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

class Grace {
public:
        // Makes the maps that the second way needs, so this wants CAP_BPF. `membarrier`: whether to try the first.
        [[nodiscard]] static Result<Grace> create(bool membarrier = true);
        [[nodiscard]] Result<void> pin(const PinDir& pins) const;
        [[nodiscard]] static Result<Grace> open(const PinDir& pins);

        // 8 to 24 ms. membarrier(GLOBAL); where the kernel refuses it (nohz_full, seccomp) an update of an array of
        // maps, which the kernel answers after a grace period.
        [[nodiscard]] Result<void> wait();

private:
        bool membarrier_ = true;
        OwnedFd inner_;
        OwnedFd outer_;
};

}  // namespace sockbroker
