// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Wanted routes and actual ones: takes whole lists from the broker, compares them with the kernel, adds and removes
// what differs, and does so again when others have changed something. Routes of a kind are left alone until its first
// list has come. The broker is not trusted: prefixes that may have no route are left out here.
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

        // good is false for what no broker sends: whoever sent it is to be disconnected. There is a report when a list
        // has ended.
        struct Taken {
                bool good = true;
                std::optional<Report> report;
        };
        [[nodiscard]] Taken take(Order order);
        // The broker is gone that had begun a list.
        void forget_unfinished() { unfinished_.reset(); }

        // Others have changed something. Reports of those kinds for which that made a difference.
        [[nodiscard]] std::vector<Report> follow(RouteEvents::Seen seen);

        // No list that has come asks for any route.
        [[nodiscard]] bool is_idle() const;
        // The kernel did not take something: it is to be tried again.
        [[nodiscard]] bool wants_to_retry() const;
        [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }  // of the last time

private:
        struct OfKind {
                std::optional<std::vector<Prefix>> wanted;  // none: no list has come yet
                std::vector<Prefix> standing;               // the broker's own routes in the kernel
                bool known = false;                         // `standing` is what the kernel has
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
