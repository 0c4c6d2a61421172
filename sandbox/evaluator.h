// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the kernel would answer: runs seccomp filters as data, so that tests can ask about any call of any architecture
// without making it. Pure.
#pragma once

#include <linux/seccomp.h>

#include <cstdint>

#include "broker/base/result.h"
#include "sandbox/compile.h"

namespace sockbroker::sandbox {

// One program's answer, SECCOMP_RET_*. An error is a program that the kernel would not have taken.
[[nodiscard]] Result<std::uint32_t> evaluate(const Filter::Program& program, const seccomp_data& data);

// The answer of all programs together, as the kernel puts it together: the strictest, and of equals the one installed
// last.
[[nodiscard]] Result<std::uint32_t> evaluate(const Filter& filter, const seccomp_data& data);

}  // namespace sockbroker::sandbox
