// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/confine.h"

#include <cerrno>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>

#include "broker/base/landlock.h"
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

Result<sandbox::Profile> built_in_profile() {
        const auto parsed = sandbox::parse_profile(
                "broker", {{"broker.profile", std::string(kProfile)}}, [](const std::string& name) {
                        return Result<sandbox::ProfileFile>(fail(fmt::format("no profile {} is built in", name)));
                });
        if (!parsed.profile) {
                return fail("the system call filter built into this broker is wrong: " +
                            parsed.errors.front().to_string());
        }
        return *parsed.profile;
}

// A folder of policies may be made later: a rule needs what is there, so it is the nearest one above.
std::string nearest(std::filesystem::path path) {
        std::error_code ignored;
        while (path.has_relative_path() && !std::filesystem::exists(path, ignored)) {
                path = path.parent_path();
        }
        return path.has_relative_path() ? path.string() : std::string{};
}

FileAccess files_of(const DaemonOptions& options) {
        FileAccess access;
        // Policies may be links into these.
        access.read = {"/etc", "/usr/lib", "/usr/local/lib"};
        // The cgroup of a registrant, the overflow uid, the boot id.
        access.read.emplace_back("/proc");
        access.read.emplace_back("/sys/devices/system/cpu");
        access.read.emplace_back("/dev/null");
        for (const std::string& dir : options.config_dirs) {
                if (auto existing = nearest(dir); !existing.empty()) {
                        access.read.push_back(std::move(existing));
                }
        }
        access.write = {options.state_dir};
        access.remove = {options.pin_dir()};  // unload
        return access;
}

}  // namespace

Result<std::string> describe_filter() {
        const auto profile = built_in_profile();
        return profile ? Result<std::string>(sandbox::dump(*profile)) : std::unexpected(profile.error());
}

Result<std::string> confine(const DaemonOptions& options) {
        const auto profile = built_in_profile();
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
