// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which files of the policy the broker's user cannot read, for those who cannot become that user: judged by owner,
// group and mode of each file and of the folders on the way to it. Reads none of them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "broker/policy/diagnostic.h"

namespace sockbroker::ctl {

struct UserIds {
        uid_t uid = 0;
        std::vector<gid_t> groups;  // its own, which comes first, and the others
};

struct Permissions {
        uid_t uid = 0;
        gid_t gid = 0;
        mode_t mode = 0;
        bool has_acl = false;  // acl(5), which the mode does not tell: then nobody is said to lack anything
};

enum class Access : std::uint8_t { kSearch = 01, kRead = 04 };

// As the kernel decides for a process without capabilities: the owner's bits for the owner, whatever the others are.
// Pure.
[[nodiscard]] bool may(const UserIds& user, const Permissions& permissions, Access access);

// In the broker's own words. Of what the caller cannot look at himself nothing is known.
[[nodiscard]] std::vector<Diagnostic> out_of_reach(const std::vector<std::string>& config_dirs, const UserIds& user);

}  // namespace sockbroker::ctl
