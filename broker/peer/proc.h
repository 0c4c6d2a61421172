// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Small words with /proc and the kernel about one process, for this room alone.
#pragma once

#include <sys/types.h>

#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker {

// A small file of /proc, as a whole.
[[nodiscard]] std::optional<std::string> read_small(int directory, const char* path);

// Field `index` from 0 of words separated by blanks.
[[nodiscard]] std::string_view word(std::string_view text, unsigned index);

// An errno otherwise: ENODATA: it is in no unit; ESRCH: gone; others: hidden by ProtectProc=.
[[nodiscard]] std::expected<std::string, int> look_up_unit(pid_t pid);
// Empty: in no unit, gone, or hidden.
[[nodiscard]] std::string unit_of(pid_t pid);

// Not reaped: the pid still names the process of the pidfd, which may have ended but then has no successor yet.
[[nodiscard]] bool still_there(int pidfd);

}  // namespace sockbroker
