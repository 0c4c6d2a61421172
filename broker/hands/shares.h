// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How much each uid, and each group of senders, has in processes of quarantine that have not ended, and who has more
// than his share. A group has four times as much as a uid: it has as many uids as it likes. Nobody has something in
// more than a few processes, however little: one that ends is nobody else's place until its senders let it. Pure.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "broker/hands/ledger.h"

namespace sockbroker::hands {

// A uid, or a group: the slice of a user or a unit, as bpf/sender.h finds it.
struct Party {
        uid_t uid = kNobody;
        std::string group;  // empty: it is a uid

        auto operator<=>(const Party&) const = default;
};

class Shares {
public:
        static constexpr std::size_t kMaxProcesses = 4;
        static constexpr std::size_t kUidsOfGroup = 4;

        // Descriptors of one uid, where a process may have so many.
        [[nodiscard]] static std::size_t of_uid(std::size_t room);

        explicit Shares(std::size_t room) : most_of_uid_(of_uid(room)) {}

        // True: with these it has more than its share, and had not before. Where that throws nothing is counted.
        [[nodiscard]] bool add(std::uint32_t child, const Party& party, std::size_t count);
        // Called for each who has no more than that any more.
        void exited(std::uint32_t child, const std::function<void(const Party&)>& may_send_again);

        [[nodiscard]] bool is_over(const Party& party) const;

private:
        struct Holding {
                std::map<std::uint32_t, std::size_t> in;  // descriptors, by process
                std::size_t count = 0;
        };
        [[nodiscard]] bool is_over(const Party& party, const Holding& holding) const;

        std::size_t most_of_uid_;
        std::map<Party, Holding> holdings_;
};

}  // namespace sockbroker::hands
