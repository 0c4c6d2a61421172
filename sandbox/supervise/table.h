// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the supervisor knows of sockets that it has bound, by cookie. Bounded: nobody says when a socket is closed, so
// the one that was used longest ago is forgotten. Such a one can still be used as it is, only not handed over.
#pragma once

#include <sys/types.h>

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
        explicit Table(std::size_t capacity) : capacity_(capacity) {}

        // None: never bound here, or forgotten. Good until the next call of put().
        [[nodiscard]] Known* find(std::uint64_t cookie);
        Known& put(std::uint64_t cookie, Known known);
        [[nodiscard]] std::size_t size() const { return index_.size(); }

private:
        using Entry = std::pair<std::uint64_t, Known>;
        std::size_t capacity_;
        std::list<Entry> entries_;  // the one used last first
        std::unordered_map<std::uint64_t, std::list<Entry>::iterator> index_;
};

}  // namespace sockbroker::supervise
