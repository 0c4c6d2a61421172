// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The door, as the core sees it: brings connections, and takes them back to be closed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/hands/wire.h"
#include "broker/hands/zygote.h"

namespace sockbroker::hands {

struct Connection {
        std::uint64_t id = 0;
        uid_t uid = 0;  // of who connected: for counting, never for judging
        pid_t pid = 0;
        OwnedFd fd;  // prepared for peeking, non-blocking; the door has a duplicate
};

class Door {
public:
        struct Hooks {
                std::function<void(Connection)> connected;
                std::function<void()>
                        ended;  // its process is to be killed, and another one to be forked when it is gone
        };
        // `control` is the listening socket: borrowed, and kept open by its owner.
        Door(sd_event* event, int control, Hooks hooks) : event_(event), control_(control), hooks_(std::move(hooks)) {}

        // Forks it as this child. Errors: no descriptors here.
        [[nodiscard]] Result<void> open(const Zygote& zygote, std::uint32_t child);

        // Whether it, and not one that has died, has a duplicate. The core must not close the last one otherwise.
        [[nodiscard]] bool has(std::uint64_t id) const { return id >> kSerialBits == generation_ && socket_; }
        // After the core's own copy is closed. keep, in_use: see DoorOrder.
        void close(std::uint64_t id, std::uint32_t offender, bool keep, bool in_use);
        void forgive(std::uint32_t offender);
        void bar(uid_t uid);
        void unbar(uid_t uid);

private:
        static constexpr unsigned kSerialBits = 40;

        void ready(std::uint32_t events);
        void receive_some();
        void order(const DoorOrder& order, std::vector<std::uint64_t> ids);
        void flush();
        void end();

        struct Pending {
                DoorOrder order;
                std::vector<std::uint64_t> ids;
        };

        sd_event* event_;
        int control_;
        Hooks hooks_;
        std::uint64_t generation_ = 0;
        std::set<uid_t> barred_;  // which a new door has to be told
        std::deque<Pending> pending_;
        OwnedFd socket_;
        OwnedSource source_;
        OwnedSource flushing_;
};

}  // namespace sockbroker::hands
