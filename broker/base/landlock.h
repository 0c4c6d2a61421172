// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Landlock: which files a process may still touch, whatever its uid and capabilities, and for good. Knows nothing of
// what the directories are for. System calls by number: libc has none, and Debian 12's header ends at the second ABI.
#pragma once

#include <string>
#include <vector>

#include "broker/base/result.h"

namespace sockbroker {

// Directories and what lies below them. Those that do not exist are left out, and stay out of reach if they come later.
struct FileAccess {
        std::vector<std::string> read;
        std::vector<std::string> write;  // and read: regular files may be made, written, renamed within, and removed
        std::vector<std::string> pin;    // files may be made, listed and removed, and neither read nor written
};

// For this thread and those that it makes from now on; needs no_new_privs. Beside files: no TCP bind or connect (from
// 6.7), no signal to a process outside and no abstract socket of one (from 6.12), no ptrace, no mount. The result is
// the ABI of the kernel. Errors: ENOSYS, EOPNOTSUPP if the kernel has none of it; then nothing is restricted.
[[nodiscard]] Result<int> restrict_files(const FileAccess& access);

enum class TcpBind : bool { kAsEver, kRefused };

// A domain for this thread and what it executes, beside whatever else it may; needs no_new_privs. From within it nobody
// looks into a process outside, be it of the same user: not by ptrace(2), and not by /proc/PID/mem either, where no
// filter of system calls sees a difference to any other file. And, if wanted, no bind(2) of a TCP socket (from 6.7).
// A second wall: no error where the kernel is older than 5.19, has no Landlock, or has no room for another domain.
[[nodiscard]] Result<void> enter_domain(TcpBind tcp_bind);

}  // namespace sockbroker
