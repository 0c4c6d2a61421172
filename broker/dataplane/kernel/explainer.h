// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Asks the kernel what would happen to a packet: runs a second build of the dispatch program, which is never attached,
// over the maps in force. It counts nothing and changes nothing. Needs the broker's three capabilities to be made and
// none afterwards.
#pragma once

#include <memory>

#include "broker/base/result.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/objects.h"

namespace sockbroker {

class Explainer {
public:
        [[nodiscard]] static Result<std::unique_ptr<Explainer>> load(const KernelObjects& objects);
        ~Explainer();
        Explainer(const Explainer&) = delete;
        Explainer& operator=(const Explainer&) = delete;

        [[nodiscard]] Result<Explained> run(const LookUp& look_up) const;

private:
        struct State;
        explicit Explainer(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
};

}  // namespace sockbroker
