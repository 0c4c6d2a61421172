// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a filter of system calls does to one of them, for the tables of its tests.
#pragma once

#include <seccomp.h>

#include <cerrno>
#include <cstdint>

namespace sockbroker::sandbox::test {

enum class Fate { kAllowed, kEperm, kEnosys, kKilled };

inline std::uint32_t answer(Fate fate) {
        switch (fate) {
        case Fate::kAllowed:
                return SECCOMP_RET_ALLOW;
        case Fate::kEperm:
                return SECCOMP_RET_ERRNO | EPERM;
        case Fate::kEnosys:
                return SECCOMP_RET_ERRNO | ENOSYS;
        case Fate::kKilled:
                break;
        }
        return SECCOMP_RET_KILL_PROCESS;
}

}  // namespace sockbroker::sandbox::test
