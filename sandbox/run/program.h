// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The file that is to be executed, as far as it decides what may be done with the process afterwards.
#pragma once

#include <cstdint>
#include <string>

namespace sockbroker::launcher {

// Where execvp(3) finds it; the word itself where there is no such file.
[[nodiscard]] std::string find_program(const std::string& word);

// Who may look into a process that executes the file, as ptrace(2) counts it. The kernel makes one undumpable whose
// user may not read the file (would_dump() of fs/exec.c). A set-user-ID bit and capabilities of the file do nothing,
// because of no_new_privs.
enum class Looking : std::uint8_t {
        kAsEver,       // by uids, yama and the like
        kInNamespace,  // only if it runs in a user namespace below: the file belongs to its user and group
        kNobody,
};
[[nodiscard]] Looking looking_into(const std::string& path);

// capabilities(7): execve(2) refuses such a file where what it wants at once cannot be had.
[[nodiscard]] bool has_capabilities(const std::string& path);

}  // namespace sockbroker::launcher
