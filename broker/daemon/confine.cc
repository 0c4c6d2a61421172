// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/confine.h"

#include <cerrno>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "broker/base/landlock.h"
#include "broker/policy/readable_paths.h"
#include "sandbox/compile.h"
#include "sandbox/parse.h"
#ifdef SOCKBROKER_TRIAL
#include "tests/sandbox/trial.h"
#endif

namespace sockbroker {

namespace {

constexpr std::string_view kProfile =
#include "broker/daemon/broker_profile.inc"
        ;
// Until there are rules of this layout, the links in cgroups have the programs of the one before.
constexpr std::string_view kAfterUpgrade = "allow bpf arg0 == BPF_LINK_UPDATE\n";

Result<sandbox::Profile> built_in_profile(bool after_upgrade) {
        std::vector<sandbox::ProfileFile> files{{"broker.profile", std::string(kProfile)}};
        if (after_upgrade) {
                files.push_back({"upgrade.profile", std::string(kAfterUpgrade)});
        }
        const auto parsed = sandbox::parse_profile("broker", files, [](const std::string& name) {
                return Result<sandbox::ProfileFile>(fail(fmt::format("no profile {} is built in", name)));
        });
        if (!parsed.profile) {
                return fail("the system call filter built into this broker is wrong: " +
                            parsed.errors.front().to_string());
        }
        return *parsed.profile;
}

FileAccess files_of(const DaemonOptions& options) {
        FileAccess access;
        access.read = readable_paths(options.config_dirs);
        access.write = {options.state_dir};
        access.pin = {options.pin_dir()};  // unload, and programs in cgroups of units
        return access;
}

}  // namespace

Result<std::string> describe_filter() {
        const auto profile = built_in_profile(false);
        return profile ? Result<std::string>(sandbox::dump(*profile)) : std::unexpected(profile.error());
}

Result<std::string> confine(const DaemonOptions& options, bool after_upgrade) {
        const auto profile = built_in_profile(after_upgrade);
        if (!profile) {
                return std::unexpected(profile.error());
        }
        std::string missing;
        if (const auto restricted = restrict_files(files_of(options)); !restricted) {
                missing = restricted.error().text() +
                          "; the system call filter, the unit and ordinary permissions still hold";
        }
        const auto filter = sandbox::compile(*profile);
        if (!filter) {
                return std::unexpected(filter.error());
        }
#ifdef SOCKBROKER_TRIAL  // another executable, tests/sandbox
        auto installed = install_for_trial(*filter);
#else
        auto installed = filter->install();
#endif
        if (!installed) {
                return fail(installed.error().errnum,
                            fmt::format("cannot install the system call filter, and the broker does not serve without "
                                        "it; the kernel needs CONFIG_SECCOMP_FILTER, and a filter around the broker "
                                        "must allow seccomp(2) ({})",
                                        installed.error().message));
        }
        return missing;
}

}  // namespace sockbroker
