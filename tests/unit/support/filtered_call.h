// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows of the tables of system calls: what a filter that stands in sandbox/ does to each.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <seccomp.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "sandbox/compile.h"
#include "sandbox/evaluator.h"
#include "sandbox/parse.h"
#include "tests/unit/support/fate.h"

namespace sockbroker::sandbox::test {

inline const std::string kRoot = SOCKBROKER_SOURCE_ROOT;

struct Call {
        const char* name;
        Arguments arguments;
        Fate fate;
};

// Arguments of the calls that the C library makes.
inline constexpr std::uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                                         CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
inline constexpr std::uint64_t kCopy = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
inline constexpr std::uint64_t kIn = static_cast<std::uint32_t>(AT_FDCWD);

inline int number_of(const std::string& name) {
        return seccomp_syscall_resolve_name(name.c_str());
}

inline seccomp_data data_of(const Call& call) {
        seccomp_data data{.nr = number_of(call.name), .arch = seccomp_arch_native()};
        std::ranges::copy(call.arguments, data.args);
        return data;
}

inline std::string text_of(const Call& call) {
        std::ostringstream text;
        text << call.name;
        for (const auto argument : call.arguments) {
                text << ' ' << argument;
        }
        return text.str();
}

inline std::string text_of(const std::string& path) {
        std::ifstream file(path);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
}

// Of sandbox/NAME.profile.
inline Profile profile_of(const std::string& name) {
        const std::string path = kRoot + "/sandbox/" + name + ".profile";
        auto parsed =
                parse_profile(name, {{path, text_of(path)}}, [](const std::string&) { return fail("no include"); });
        for (const auto& error : parsed.errors) {
                ADD_FAILURE() << error.to_string();
        }
        return parsed.profile.value_or(Profile{});
}

inline Filter filter_of(const std::string& name) {
        auto filter = compile(profile_of(name));
        EXPECT_TRUE(filter) << name;
        return filter ? *filter : Filter{};
}

}  // namespace sockbroker::sandbox::test
