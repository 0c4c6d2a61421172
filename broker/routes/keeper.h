// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is to stand and what stands: takes whole lists from the broker, compares them with the kernel, adds and removes
// what differs, and does so again when others have changed something. Of a kind for which no list has come nothing is
// touched. What the broker asks for is not believed: prefixes that may have no route are left out here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"
#include "broker/routes/kernel.h"
#include "broker/routes/wire.h"

namespace sockbroker::routes {

// Whether one of the networks makes a route of this kind harmful: the same network, or for a local route one that lies
// in the prefix, which the machine would then take for its own. `networks` is sorted. Pure.
[[nodiscard]] bool is_connected(const Prefix& prefix, Kind kind, const std::vector<Prefix>& networks);

class Keeper {
public:
        // No list may have more than `most` prefixes.
        Keeper(KernelRoutes& kernel, std::size_t most) : kernel_(kernel), most_(most) {}

        // False: it says what no broker says, and whoever sent it is not to be heard any more. A report is due when a
        // list has ended.
        struct Taken {
                bool good = true;
                std::optional<Report> report;
        };
        [[nodiscard]] Taken take(Order order);
        // Whoever sent the list that has not ended is gone.
        void forget_unfinished() { unfinished_.reset(); }

        // Others have changed something. Reports of those kinds for which that made a difference.
        [[nodiscard]] std::vector<Report> follow(RouteEvents::Seen seen);

        // Nothing is to stand, as far as anybody has said.
        [[nodiscard]] bool is_idle() const;
        // The kernel did not take something: it is to be tried again.
        [[nodiscard]] bool wants_to_retry() const;
        [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }  // of the last time

private:
        struct OfKind {
                std::optional<std::vector<Prefix>> wanted;  // none: nobody has said yet
                std::vector<Prefix> standing;               // of the broker's own
                bool known = false;                         // that this is what stands
                bool retry = false;
                std::uint32_t number = 0;
        };
        [[nodiscard]] Report apply(Kind kind);
        void make_it_so(Kind kind, OfKind& state, Report& report);
        [[nodiscard]] std::vector<Prefix> allowed(Kind kind, const std::vector<Prefix>& wanted, Report& report) const;

        KernelRoutes& kernel_;
        std::size_t most_;
        std::array<OfKind, kKinds> kinds_;
        struct Unfinished {
                Kind kind = Kind::kLocal;
                std::vector<Prefix> prefixes;
        };
        std::optional<Unfinished> unfinished_;
        std::vector<Prefix> networks_;
        bool networks_known_ = false;
        std::optional<Error> failure_;
};

}  // namespace sockbroker::routes
