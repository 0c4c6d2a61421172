// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whom policy admits, where that takes a word of the host about names of User= and Group=: the one request waits for
// it, and all others go on. Bounded, since anybody may ask. The verdict itself is admit()'s.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "broker/daemon/policy_in_force.h"
#include "broker/names/names.h"
#include "broker/policy/decide.h"

namespace sockbroker {

class Admissions {
public:
        // An answer that is not older than this admits without asking again. A DynamicUser= whose service ends leaves
        // its number to others, hence so short.
        static constexpr std::int64_t kFreshUsec = 1'000'000;

        Admissions(Names& names, const PolicyInForce& policy);

        // Calls `then` once, before it returns or later, with the verdict of the policy of that moment; the Admission
        // is good for as long as that policy is. `descriptors`: how many the request keeps open while it waits.
        using Verdict = std::expected<Admission, Refusal>;
        using Then = std::function<void(const Verdict&)>;
        void judge(const std::string& service, const Peer& peer, std::size_t descriptors, const Then& then);

private:
        struct Ticket;
        struct Waiting;
        [[nodiscard]] std::expected<std::shared_ptr<Ticket>, Refusal> admit_to_wait(const Peer& peer, std::size_t cost);
        void ask(const std::shared_ptr<Waiting>& waiting, const std::vector<Question>& questions);

        Names& names_;
        const PolicyInForce& policy_;
        // Of one user, and of one unit, since a user may have many uids: each request that waits counts, and each of
        // its descriptors.
        std::size_t max_of_sender_ = 0;
        std::size_t max_of_all_ = 0;
        std::size_t all_ = 0;
        std::map<uid_t, std::size_t> of_uid_;
        std::map<std::string, std::size_t> of_unit_;
};

}  // namespace sockbroker
