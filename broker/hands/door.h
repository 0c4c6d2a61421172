// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The door, as the core sees it: brings connections, takes them back to be closed, and says whom it has refused.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/hands/wire.h"
#include "broker/hands/zygote.h"

namespace sockbroker::hands {

struct Connection {
        std::uint64_t id = 0;
        uid_t uid = 0;  // of who connected: for counting; who asks is what messages say
        pid_t pid = 0;
        bool labels = false;  // its peer speaks as label.h says
        OwnedFd fd;           // prepared for peeking, non-blocking; the door has a duplicate
};

class Door {
public:
        struct Hooks {
                std::function<void(Connection)> connected;
                std::function<void(const RefusedReport&)> refused;  // connections that nobody brings
                std::function<void()>
                        ended;  // its process is to be killed, and another one to be forked when it is gone
        };
        // Listening sockets, borrowed, and kept open by their owner; `labels` may be -1.
        Door(sd_event* event, int control, int labels, Hooks hooks)
                : event_(event), control_(control), labels_(labels), hooks_(std::move(hooks)) {}

        // Forks it as this child. Errors: no descriptors here.
        [[nodiscard]] Result<void> open(const Zygote& zygote, std::uint32_t child);

        // Its process has ended: hears what it has said before. A connection that it was about to bring is the last
        // copy, and must not be closed with the socket that it lies in.
        void finish();

        // Whether it, and not one that has died, has a duplicate. The core must not close the last one otherwise.
        [[nodiscard]] bool has(std::uint64_t id) const { return id >> kSerialBits == generation_ && is_alive(); }
        // Of each connection that came, once, after the core's own copy is closed. keep, in_use: see DoorOrder.
        void close(std::uint64_t id, std::uint32_t offender, bool keep, bool in_use) noexcept;
        // Those that it keeps for offenders of whom this is so are to be closed now.
        template <class IsOver>
        void forgive(const IsOver& is_over) {
                for (auto& [offender, forgiven] : kept_) {
                        forgiven = forgiven || is_over(offender);
                }
                flush_soon();
        }
        // For want of memory it may not hear of it; then hands stay closed to this user here, and connections come.
        void bar(uid_t uid) noexcept;
        template <class IsOver>
        void unbar(const IsOver& is_over) {
                for (auto& [uid, bar] : bars_) {
                        bar.wanted = bar.wanted && !is_over(uid);
                }
                flush_soon();
        }

private:
        static constexpr unsigned kSerialBits = 40;

        struct Closing {
                std::uint64_t id = 0;
                std::uint32_t offender = 0;
                bool keep = false;
                bool in_use = false;
        };
        struct Bar {
                bool wanted = true;
                bool told = false;
        };
        [[nodiscard]] bool is_alive() const;  // now, whether its end has been heard of or not
        void ready(std::uint32_t events);
        [[nodiscard]] bool receive_some();  // false: there is no more for now
        // What it says, with what came with it. False: no door of ours says that.
        [[nodiscard]] bool take(std::span<const std::byte> record, OwnedFd fd);
        void flush_soon() noexcept;
        void flush();
        // Of what there is to say. False: no room for now.
        [[nodiscard]] bool say(DoorOrder order, std::span<const std::uint64_t> ids = {});
        [[nodiscard]] bool say_bars();
        [[nodiscard]] bool say_closings();
        [[nodiscard]] bool say_ends();
        void end();

        sd_event* event_;
        int control_;
        int labels_;
        Hooks hooks_;
        std::uint64_t generation_ = 0;
        // Said at the end of the turn: what is barred, then what is closed, then what is so no longer.
        std::map<uid_t, Bar> bars_;
        std::map<std::uint32_t, bool> kept_;  // offenders, and whether they are forgiven
        std::vector<Closing> closing_;        // with room for all that are open
        std::size_t open_ = 0;
        OwnedFd socket_;
        OwnedSource source_;
        OwnedSource flushing_;
};

}  // namespace sockbroker::hands
