// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the supervisor knows of sockets that it has bound, by cookie. Bounded: nobody says when a socket is closed, so
// the one that was used longest ago is forgotten. Such a one can still be used as it is, only not handed over. So those
// that were made as asked, of which a resolver makes thousands a second, take no room from those of services; and of
// these the registered ones are forgotten first, since what is bound and waits for listen(2) would serve nobody then.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "sandbox/supervise/plan.h"

namespace sockbroker::supervise {

struct Known {
        std::vector<std::byte> bytes;       // of the bind(2)
        std::vector<std::string> services;  // that take it; none: made as asked
        Asked asked;
        pid_t registered_for = 0;  // 0: not yet
        bool own = true;           // made by the program, not a spare
        bool keeps_group = false;  // ReusePort=: a program of its SO_REUSEPORT group is the program's own affair
        bool ended = false;        // of UDP: end_socket(), since one of two services has refused it
};

class Table {
public:
        // So many as asked, and so many of services.
        explicit Table(std::size_t capacity) : capacity_(capacity) {}

        // None: never bound here, or forgotten. Good until the next call of put().
        [[nodiscard]] Known* find(std::uint64_t cookie);
        Known& put(std::uint64_t cookie, Known known);
        // That it is registered, or not any more, has changed.
        void note_changed(std::uint64_t cookie) { (void)find(cookie); }
        [[nodiscard]] std::size_t size() const { return index_.size(); }

private:
        enum Kind : std::uint8_t { kAsAsked, kRegistered, kWaits };
        [[nodiscard]] static Kind kind_of(const Known& known);
        void make_room(Kind kind);

        struct Entry {
                std::uint64_t cookie;
                Known known;
                Kind kind;  // the list that it is in
        };
        using Entries = std::list<Entry>;
        std::size_t capacity_;
        std::array<Entries, 3> entries_;  // by kind, the one used last first
        std::unordered_map<std::uint64_t, Entries::iterator> index_;
};

}  // namespace sockbroker::supervise
