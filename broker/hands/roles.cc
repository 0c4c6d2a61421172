// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/roles.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "broker/base/landlock.h"
#include "sandbox/parse.h"

namespace sockbroker::hands {

namespace {

constexpr std::string_view kHand =
#include "broker/hands/hand_profile.inc"
        ;
constexpr std::string_view kIntakeText =
#include "broker/hands/intake_profile.inc"
        ;
constexpr std::string_view kDisposalText =
#include "broker/hands/disposal_profile.inc"
        ;
constexpr std::string_view kHolderText =
#include "broker/hands/holder_profile.inc"
        ;
constexpr std::string_view kDoorText =
#include "broker/hands/door_profile.inc"
        ;
constexpr std::string_view kZygoteText =
#include "broker/hands/zygote_profile.inc"
        ;

sandbox::ProfileFile file(std::string_view name, std::string_view text) {
        return {std::string(name) + ".profile", std::string(text)};
}

Result<sandbox::Profile> assembled(std::string_view name, const std::vector<sandbox::ProfileFile>& files) {
        auto parsed = sandbox::parse_profile(std::string(name), files, [](const std::string&) {
                return Result<sandbox::ProfileFile>(fail("nothing is included"));
        });
        if (!parsed.profile) {
                return fail("a system call filter built into this broker is wrong: " +
                            parsed.errors.front().to_string());
        }
        return std::move(*parsed.profile);
}

}  // namespace

Result<sandbox::Profile> profile_of(Role role) {
        std::vector<sandbox::ProfileFile> files{file("hand", kHand)};
        switch (role) {
        case Role::kIntake:
                files.push_back(file("intake", kIntakeText));
                break;
        case Role::kDisposal:
        case Role::kQuarantine:
                files.push_back(file("disposal", kDisposalText));
                break;
        case Role::kHolder:
                files.push_back(file("intake", kIntakeText));
                files.push_back(file("holder", kHolderText));
                break;
        case Role::kDoor:
                files.push_back(file("door", kDoorText));
                break;
        }
        return assembled(to_string(role), files);
}

Result<sandbox::Profile> zygote_profile() {
        return assembled("zygote", {file("hand", kHand), file("intake", kIntakeText), file("disposal", kDisposalText),
                                    file("holder", kHolderText), file("door", kDoorText), file("zygote", kZygoteText)});
}

Result<Filters> compile_filters() {
        Filters filters;
        for (std::size_t i = 0; i < kRoles; i++) {
                const auto profile = profile_of(static_cast<Role>(i));
                auto filter = profile ? sandbox::compile(*profile) : std::unexpected(profile.error());
                if (!filter) {
                        return std::unexpected(filter.error());
                }
                filters[i] = std::move(*filter);
        }
        return filters;
}

Result<Given> give_up_the_rest() {
        rlimit limit{};
        if (setrlimit(RLIMIT_CORE, &limit) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
                return fail_errno("cannot forbid core files of the hands");
        }
        if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
                return fail_errno("cannot tell how many descriptors a hand may have");
        }
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
                return fail_errno("cannot raise the number of descriptors that a hand may have");
        }
        const auto restricted = restrict_files({});
        return Given{.missing_landlock = restricted ? 0 : restricted.error().errnum,
                     .max_fds = static_cast<std::size_t>(limit.rlim_cur)};
}

}  // namespace sockbroker::hands
