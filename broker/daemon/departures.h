// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What follows when sockets are not registered any more: the journal has it, what holds them lets go, their routes are
// looked at again, and `explain` knows for a while how the last one of a service went.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/base/result.h"
#include "broker/daemon/held_sockets.h"
#include "broker/daemon/routes.h"
#include "broker/daemon/service_entries.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Departures {
public:
        Departures(Audit& audit, ServiceEntries& entries, HeldSockets& held, Routes& routes)
                : audit_(audit), entries_(entries), held_(held), routes_(routes) {}

        void tell(const Removal& removal, Action action, std::string_view why);
        void tell(const Result<std::vector<Departure>>& departures, Action action, std::string_view why);
        // Of those that a look has found closed, shut down or connected.
        void gone(const Removal& removal);
        void gone(const Result<std::vector<Departure>>& departures);

        [[nodiscard]] std::uint64_t found_gone() const { return gone_; }
        struct Last {
                std::int64_t usec = 0;  // since the epoch
                std::string why;
        };
        [[nodiscard]] const Last* last_of(const std::string& service) const;  // null: none lately

private:
        static constexpr std::size_t kRemembered = 1024;
        void tell_all(const std::vector<Departure>& departures, Action action, std::string_view why);
        void blame(const Error& error);
        void remember(const std::string& service, std::string_view why);

        Audit& audit_;
        ServiceEntries& entries_;
        HeldSockets& held_;
        Routes& routes_;
        std::uint64_t gone_ = 0;
        std::map<std::string, Last, std::less<>> last_;
};

}  // namespace sockbroker
