// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Connections that wait for a hand of disposal. To close one takes as long as what lies in its queue likes, so each
// user has his turn, however many others have sent. Those of whoever is barred wait without one.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker::hands {

class Discards {
public:
        // Of whom more are waiting no more is let in.
        static constexpr std::size_t kMaxPerUid = 128;

        void add(uid_t uid, std::uint32_t offender, OwnedFd connection);
        [[nodiscard]] std::size_t size() const { return size_; }
        [[nodiscard]] bool has_too_many(uid_t uid) const;

        // What waits of this user (kNobody: of everybody), or of this offender, waits on until the opposite is said.
        void bar(uid_t uid) { barred_.insert(uid); }
        void unbar(uid_t uid);
        void keep(std::uint32_t offender) { kept_.insert(offender); }
        void forgive(std::uint32_t offender);
        [[nodiscard]] bool is_barred(uid_t uid) const { return barred_.contains(uid); }

        // Whose turn it is: connections of one user and offender, kMaxDiscarded at most. They stay until sent().
        struct Batch {
                uid_t uid = 0;
                std::uint32_t offender = 0;
                std::vector<int> connections;
        };
        [[nodiscard]] bool has_next();
        [[nodiscard]] Batch next();  // where there is one
        void sent(const Batch& batch);

private:
        using Waiting = std::map<std::uint32_t, std::deque<OwnedFd>>;  // by offender
        struct User {
                Waiting waiting;
                std::size_t count = 0;
                bool has_turn = false;
        };
        [[nodiscard]] Waiting::iterator first_of(uid_t uid, User& user) const;
        void give_turn(uid_t uid, User& user);
        void give_turns();

        std::map<uid_t, User> users_;
        std::deque<uid_t> turns_;
        std::set<uid_t> barred_;
        std::set<std::uint32_t> kept_;
        std::size_t size_ = 0;
};

}  // namespace sockbroker::hands
