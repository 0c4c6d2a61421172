// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The services behind .socket units, as PID 1 tells: PID 1 keeps such a socket, and it takes clients whatever the
// service does that is to answer them.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/ctl/render.h"
#include "broker/ctl/system_bus.h"

namespace sockbroker::ctl {

// "resolver.service (active)", of a row with those fields; else "-".
[[nodiscard]] std::string triggers_of(const Json& row);

class Triggered {
public:
        // To a row of list, by its unit: triggers and triggers_state, the service that its .socket unit starts and its
        // ActiveState (null: nobody could be asked). Nothing where the socket is of no .socket unit. A one-shot that
        // registers for a .socket unit (Sockets=) counts as that.
        void add_to(Json& row);

private:
        struct Service {
                std::string name;
                std::string state;
        };
        [[nodiscard]] std::optional<Service> find(const std::string& unit);
        [[nodiscard]] std::string property(const std::string& unit, const char* name);
        [[nodiscard]] std::vector<std::string> list_of(const std::string& unit, const char* name);
        // Within the time that there is for all of them; null: nobody can be asked.
        [[nodiscard]] sd_bus* bus();

        static constexpr std::chrono::milliseconds kPatience{1000};
        std::map<std::string, std::optional<Service>> known_;  // by unit
        SystemBus bus_;                                        // none: not asked for yet, or there is none
        bool looked_for_bus_ = false;
        std::chrono::steady_clock::time_point begun_;
};

}  // namespace sockbroker::ctl
