// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where policies come from: the folders, and the copy of the one last taken; and what is on record of a trial. Never
// changes, and so is safe in any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/result.h"
#include "broker/daemon/merged_folders.h"
#include "broker/daemon/options.h"
#include "broker/policy/diagnostic.h"
#include "broker/policy/files.h"
#include "broker/policy/parse.h"
#include "broker/policy/trial_record.h"

namespace sockbroker {

struct LoadedPolicy {
        std::vector<PolicyFile> files;
        std::optional<Policy> policy;  // none if anything is wrong
        std::vector<Diagnostic> diagnostics;
        // By a file, be it empty. What no file supports is taken, for nobody knows better, but never replaces
        // the copy of the policy last taken: a mount that is missing must not be what is left of a policy.
        bool supported = false;
        std::string digest;      // of the files
        std::size_t errors = 0;  // in all, see findings.h

        bool add_errors(std::vector<Diagnostic> more);  // whether there are any
};

class PolicySource {
public:
        // limits: of a policy that is taken; room: what the kernel's maps have.
        PolicySource(const DaemonOptions& options, const PolicyLimits& limits, const PolicyLimits& room)
                : config_dirs_(options.config_dirs),
                  copy_(options.policy_copy()),
                  trial_(options.trial_record()),
                  boot_(boot_id()),
                  folders_(config_dirs_),
                  limits_(limits),
                  room_(room) {}

        [[nodiscard]] LoadedPolicy load() const;
        // Of the files that are there just now; empty: not all of them can be read.
        [[nodiscard]] std::string digest() const;
        // What keeps the kernel from taking its rules.
        [[nodiscard]] std::vector<Diagnostic> check(const Policy& policy) const;

        [[nodiscard]] Result<std::vector<PolicyFile>> read_copy() const { return read_policy_copy(copy_); }
        [[nodiscard]] Result<void> write_copy(const std::vector<PolicyFile>& files) const {
                return write_policy_copy(copy_, files);
        }
        [[nodiscard]] Result<std::optional<TrialRecord>> read_trial() const { return read_trial_record(trial_); }
        // None: nothing is on trial.
        [[nodiscard]] Result<void> put_trial(const std::optional<TrialRecord>& record) const {
                return put_trial_record(trial_, record);
        }
        // For records; kUnknownBoot where it cannot be asked for.
        [[nodiscard]] const std::string& boot() const { return boot_; }
        // By what the kernel has room for: limits that were lowered since keep nothing away that was in force.
        [[nodiscard]] ParsedPolicy parse(const std::vector<PolicyFile>& copy) const {
                return parse_policy(copy, room_);
        }

private:
        [[nodiscard]] static std::string boot_id();

        const std::vector<std::string> config_dirs_;
        const std::string copy_;
        const std::string trial_;
        const std::string boot_;
        const MergedFolders folders_;
        const PolicyLimits limits_;
        const PolicyLimits room_;
};

}  // namespace sockbroker
