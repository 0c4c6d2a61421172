// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the journal, and who sees nothing but one line, are told of the diagnostics of a policy.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/policy/diagnostic.h"

namespace sockbroker {

[[nodiscard]] std::string count_errors(std::size_t errors);
// " (the first: FILE:LINE: MESSAGE)"; empty: there is none.
[[nodiscard]] std::string first_error(const std::vector<Diagnostic>& diagnostics);
// `errors`: in all, see findings.h.
void tell_diagnostics(Audit& audit, const std::vector<Diagnostic>& all, std::size_t errors);

}  // namespace sockbroker
