// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Asks the kernel what would happen to a packet: runs a second build of the dispatch program, which is never attached,
// over the maps in force. It counts nothing and changes nothing. Needs the broker's three capabilities in load() and
// none afterwards.
#pragma once

#include "bpf/trace.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/mapping.h"
#include "broker/dataplane/kernel/objects.h"
#include "broker/dataplane/kernel/pins.h"

namespace sockbroker {

class Explainer {
public:
        // Loads the program and pins it.
        [[nodiscard]] static Result<void> load(const PinDir& pins, const KernelObjects& objects);
        [[nodiscard]] static Result<Explainer> open(const PinDir& pins);

        [[nodiscard]] Result<Explained> run(const LookUp& look_up) const;

private:
        OwnedFd program_;
        Mapping<sb_trace> trace_;
};

}  // namespace sockbroker
