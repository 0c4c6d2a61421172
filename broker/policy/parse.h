// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Text to Policy, whole or not at all. Pure: validity depends on the text alone, never on the host. inih does
// the splitting; a strict grammar is checked line by line before inih sees anything, since its leniency would
// change what a policy means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker/policy/diagnostic.h"
#include "broker/policy/policy.h"

namespace sockbroker {

struct PolicyFile {
        std::string path;
        std::string text;
};

struct PolicyLimits {
        static constexpr std::uint32_t kMostBindings = 1U << 24;  // of MaxBindings=

        std::uint32_t max_bindings = 65536;
        std::uint32_t max_services = 1024;
        std::uint32_t max_accounted = 4096;  // bindings of services with Accounting=binding
};

struct ParsedPolicy {
        std::optional<Policy> policy;         // none if any diagnostic is an error
        std::vector<Diagnostic> diagnostics;  // in order of files and lines, errors and warnings; see findings.h
        std::size_t errors = 0;               // how many there are, those too that are not among the diagnostics
};

// `files` in the order in which they are merged. `configured`: what sockbrokerd.conf says by now, where `limits` are
// what a broker was started with; where they differ, what a restart would change is told.
[[nodiscard]] ParsedPolicy parse_policy(const std::vector<PolicyFile>& files, const PolicyLimits& limits,
                                        const std::optional<PolicyLimits>& configured = {});

}  // namespace sockbroker
