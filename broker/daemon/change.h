// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a change of the rules takes with it through its steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/daemon/reloads.h"
#include "broker/daemon/route_plan.h"
#include "broker/policy/changes.h"

namespace sockbroker {

// From its beginning to its answers. Belongs to the worker while it has a job, else to the loop.
struct Reloads::Change {
        std::vector<Reply> replies;
        // What for: a reload; the policy in force, for other interfaces; the one before, which was not kept in time;
        // nothing at all, only to say what a reload would do; or only the copy of a policy that is kept.
        enum class Kind : std::uint8_t { kReload, kInterfaces, kBack, kDiff, kCopy };
        Kind kind = Kind::kReload;
        bool over = false;              // it was told what came of it: no step follows
        std::int64_t confirm_usec = 0;  // of a reload: back again unless it is kept by then; 0: it is
        LoadedPolicy loaded;
        std::shared_ptr<const std::vector<Diagnostic>> told;  // for the answers
        std::shared_ptr<const Policy> policy;
        std::vector<AccountName> names;  // of it
        Doubtful doubtful;
        Interfaces interfaces;
        Registry::Change numbers;
        Result<void> installed;
        std::shared_ptr<const RoutePlan> routes;           // that the policy asks for
        std::vector<Diagnostic> blamed;                    // for a failure of it
        std::shared_ptr<const Policy> before;              // of a diff: what is in force
        std::shared_ptr<const PolicyChanges> differences;  // from that
        std::string lost;                                  // rows of sockets that a reload has taken away
        Result<void> copied;
        // What is to be on record of a trial once this is in force; none: nothing is on trial. Of a reload and a copy.
        std::optional<TrialRecord> record;
        Result<void> recorded;
        std::optional<Trial> trial;  // that a way back ends
        std::string on_disk;         // of a way back: the digest of the files that are there by then
        std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();

        // The diagnostics are for the answers from now on.
        void tell() { told = std::make_shared<const std::vector<Diagnostic>>(std::exchange(loaded.diagnostics, {})); }
        void fail_copy(const char* why) noexcept;
        void fail_record() noexcept;
        [[nodiscard]] std::string not_written() const;  // why the next broker will not know of it; empty: it will
        // Each asker once.
        void answer(ResultCode code, const std::string& message) noexcept;
};

}  // namespace sockbroker
