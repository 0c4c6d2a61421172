// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/own_filter.h"

#include <vector>

#include "sandbox/parse.h"

namespace sockbroker::supervise {

std::optional<sandbox::Profile> own_profile(bool names) {
        static constexpr const char* kText =
#include "sandbox/run/supervisor_profile.inc"
                ;
        std::vector<sandbox::ProfileFile> files{{"supervisor.profile", kText}};
        if (names) {
                files.push_back({"--asked-names", "allow process_vm_writev\n"});
        }
        return sandbox::parse_profile(
                       "supervisor", files,
                       [](const auto&) { return Result<sandbox::ProfileFile>(fail("nothing is included")); })
                .profile;
}

}  // namespace sockbroker::supervise
