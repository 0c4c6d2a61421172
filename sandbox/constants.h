// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The names that profiles may use: system calls, errno names and constants of the kernel's headers. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker::sandbox {

// AF_UNIX, CLONE_NEWNET, SO_REUSEPORT and the like, see constants.cc.
[[nodiscard]] std::optional<std::uint64_t> constant(std::string_view name);

// EPERM, ENOSYS and all others of errno(3).
[[nodiscard]] std::optional<int> errno_of(std::string_view name);

enum class CallKind : std::uint8_t {
        kHere,       // a system call of this architecture
        kElsewhere,  // of another one only
        kNowhere,    // of none that libseccomp knows
};

[[nodiscard]] CallKind kind_of_call(const std::string& name);

}  // namespace sockbroker::sandbox
