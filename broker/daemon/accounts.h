// SPDX-License-Identifier: LGPL-2.1-or-later
//
// User= and Group= values to numbers, through NSS. Asked anew each time: the user of a DynamicUser= service
// exists only while its unit runs, and its number is given to others afterwards.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "broker/policy/decide.h"

namespace sockbroker {

[[nodiscard]] Accounts system_accounts();

// For requests that name no service, which ask for every User= and Group= of the policy: anybody may send them, and a
// look-up may be slow. Answers are up to a second old, but for what NSS says of these two ids themselves, so that a
// user who came into being just now is found. What it finds has to be asked again of system_accounts() before it
// counts.
class RememberedAccounts {
public:
        [[nodiscard]] Accounts recall(uid_t uid, gid_t gid);

private:
        template <class Id>
        struct Memory {
                std::map<std::string, std::optional<Id>> ids;
                std::chrono::steady_clock::time_point since;
        };
        const Accounts accounts_ = system_accounts();
        Memory<uid_t> users_;
        Memory<gid_t> groups_;
};

}  // namespace sockbroker
