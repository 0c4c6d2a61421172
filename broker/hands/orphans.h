// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections of a door that has died, which the core has the last copy of: hands of disposal close them. There is room
// for all that are open, so adding one needs no memory.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/hands/hand.h"
#include "broker/hands/ledger.h"

namespace sockbroker::hands {

class Orphans {
public:
        // A connection comes. Where it throws, none has.
        void opened();
        void closed() noexcept { open_ -= open_ > 0 ? 1 : 0; }

        void add(OwnedFd connection, Charge charge) noexcept;
        [[nodiscard]] bool empty() const { return waiting_.empty(); }
        // The order to close one. Where it throws, all are still here; one that nobody took is given back.
        [[nodiscard]] std::unique_ptr<Job> next();
        void give_back(Job& job) noexcept;

private:
        struct Orphan {
                OwnedFd connection;
                Charge charge;
        };
        std::vector<Orphan> waiting_;
        std::size_t open_ = 0;
};

}  // namespace sockbroker::hands
