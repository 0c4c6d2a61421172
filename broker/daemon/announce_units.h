// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the units that registered sockets are active, as far as PID 1 has said. Of a socket that a .socket unit
// handed over, itself or by a one-shot service with Sockets=, it is the service that unit triggers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/turns.h"
#include "broker/holds/unit_watch.h"

namespace sockbroker {

// ActiveState: it runs. Not while it starts, and not any more once it begins to end.
[[nodiscard]] bool is_active(const UnitState& state);

class AnnounceUnits {
public:
        // `changed`: another answer may be given.
        AnnounceUnits(sd_event* event, std::function<void()> changed);

        // From now on states are asked for.
        void want() { watch_.want(); }
        // None: nobody has said yet, and somebody may. Where nobody can say (no bus), and outside units: true, the
        // socket alone counts.
        [[nodiscard]] std::optional<bool> is_up(const std::string& unit);
        // Forgets units that nobody has asked for since the last time.
        void forget_others();

private:
        struct Known {
                std::optional<UnitState> state;
                bool asked = false;   // a question is on its way
                bool stale = true;    // another state may be had
                bool wanted = false;  // since forget_others()
        };
        [[nodiscard]] const Known& look_up(const std::string& unit);
        [[nodiscard]] std::optional<bool> any_triggered(const std::string& socket);
        void ask(const std::string& unit);

        std::function<void()> changed_;
        std::map<std::string, Known, std::less<>> units_;
        UnitWatch watch_;
};

}  // namespace sockbroker
