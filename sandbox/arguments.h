// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The conditions of a profile as BPF: one straight block for each call that has any, line after line, value after
// value, found by a binary search, for the kernel asks a filter that looks at arguments with every such call. What a
// line allows is answered at once. Not by libseccomp, whose 2.5.4 shares code between calls wrongly once there are many
// conditions: profiles of tests/unit/sandbox_compile_test.cc allowed calls that no line allows, in the running kernel.
// Pure.
#pragma once

#include <cstdint>

#include "sandbox/compile.h"

namespace sockbroker::sandbox {

// For calls of this architecture that have conditions and of which no line holds: `refusal` (SECCOMP_RET_*). All else
// goes on to what is appended to the program.
[[nodiscard]] Filter::Program arguments_program(const Profile& profile, std::uint32_t refusal);

}  // namespace sockbroker::sandbox
