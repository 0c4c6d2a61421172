// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rules to the bytes of one generation of the kernel's rule memory. Pure: no system call, the same rules in any order
// give the same answers. Precedence is decided here and nowhere else: longest destination prefix; narrower port range;
// longest source; a named interface over any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "bpf/layout.h"
#include "broker/base/result.h"
#include "broker/dataplane/rules.h"

namespace sockbroker {

// Lines of arena that one generation is given for so many bindings: 88 bytes each cover every mix of prefixes and
// conditions that the tests could think of.
[[nodiscard]] constexpr std::uint32_t lines_for(std::uint32_t bindings) {
        return static_cast<std::uint32_t>(std::uint64_t{bindings} * 88 / SB_LINE_BYTES) + 1024;
}

// Errors: a rule that cannot be (no service, port 0, host bits, an interface index beyond 24 bits), two services with
// the same rule, port ranges of one prefix, source and interface that overlap with equal width, more rules to try for
// one packet than SB_MAX_STEPS, more lines than there is room for.
// A rule whose source is of the other family matches nobody and takes no room.
// `room` and `tables` are written in place, so they may be the kernel's, and need not be cleared; what they hold after
// an error means nothing. Returns how many lines were taken. `blamed`: of an error, the index of the rule that it is
// about.
[[nodiscard]] Result<std::size_t> compile_into(std::span<const Rule> rules, std::span<sb_line> room,
                                               std::span<sb_table, 4> tables, std::size_t* blamed = nullptr);

}  // namespace sockbroker
