// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sees to it that one door is open. A process that was a door may take as long to end as what lies in its connections
// likes, so another one takes its place at once, and those that are ending are only counted.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/result.h"
#include "broker/hands/door.h"
#include "broker/hands/roster.h"
#include "broker/hands/zygote.h"

namespace sockbroker::hands {

class Doors {
public:
        struct Hooks {
                std::function<void(Connection)> connected;
                std::function<void(const RefusedReport&)> refused;
                std::function<void()> missing;  // there is none: call reopen() a little later
        };
        // Listening sockets, borrowed; `control` may be -1, and then no door is ever opened.
        Doors(sd_event* event, Zygote& zygote, Roster& roster, int control, int labels, Hooks hooks);

        // A door that cannot be made now is missing, as one that cannot be made later: others of the same user may have
        // too many descriptors on their way.
        [[nodiscard]] Result<void> start();
        void reopen() noexcept;  // where there is none
        [[nodiscard]] Door& current() { return door_; }

        // False: it is no door.
        [[nodiscard]] bool forked(std::uint32_t child, pid_t pid) noexcept;
        [[nodiscard]] bool exited(std::uint32_t child);
        [[nodiscard]] bool settled() const { return control_ < 0 || child_ != 0; }

private:
        void open() noexcept;
        void ended();

        Zygote& zygote_;
        Roster& roster_;
        int control_;
        int labels_;
        Hooks hooks_;
        Door door_;
        std::uint32_t child_ = 0;
        std::vector<std::uint32_t> ending_;  // with room for as many as there may be
};

}  // namespace sockbroker::hands
