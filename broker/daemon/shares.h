// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What each uid takes of the control socket: connections, and time of the event loop. Who has used much of it lately is
// served when nobody else waits. Only counts; never judges who may do what. Knows no clock of its own.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>

namespace sockbroker {

class Shares {
public:
        // Free for everybody; what is used beyond is paid back at a twentieth of the time that passes.
        static constexpr std::int64_t kBurstUsec = 20'000;
        static constexpr std::int64_t kRepaidPart = 20;
        static constexpr std::int64_t kMostUsec = 1'000'000;  // nobody pays for longer than twenty seconds
        static constexpr std::size_t kMaxUids = 4096;

        void connect(uid_t uid);
        void disconnect(uid_t uid);
        [[nodiscard]] std::size_t connections(uid_t uid) const;

        void charge(uid_t uid, std::int64_t began_usec, std::int64_t ended_usec);
        // 0: first; what was used counts in steps of the burst, so that who used less comes before who used more.
        [[nodiscard]] std::int64_t place_in_queue(uid_t uid, std::int64_t now_usec) const;

private:
        struct Share {
                std::size_t connections = 0;
                std::int64_t used_usec = 0;
                std::int64_t since_usec = 0;

                [[nodiscard]] std::int64_t used(std::int64_t now_usec) const;
        };
        std::map<uid_t, Share> shares_;
};

}  // namespace sockbroker
