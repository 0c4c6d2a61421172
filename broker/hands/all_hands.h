// SPDX-License-Identifier: LGPL-2.1-or-later
//
// All hands by their kinds, and what is done with every kind alike.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "broker/hands/crew.h"
#include "broker/hands/hand.h"
#include "broker/hands/holders.h"
#include "broker/hands/pool.h"
#include "broker/hands/quarantine.h"
#include "broker/hands/roster.h"

namespace sockbroker::hands {

struct AllHands {
        // `of_each`: hands of intake, and as many of disposal. `last_job`: of all jobs.
        AllHands(Roster& roster, std::size_t of_each, const Crew::Hooks& hooks, std::uint32_t& last_job)
                : intake(Role::kIntake, of_each, roster),
                  disposal(Role::kDisposal, of_each, roster),
                  quarantine(roster, hooks),
                  holders(roster, hooks, last_job) {}

        // None: a kind that is no pool.
        [[nodiscard]] Pool* pool_of(Role role) {
                return role == Role::kIntake ? &intake : role == Role::kDisposal ? &disposal : nullptr;
        }

        void forked(std::uint32_t child, pid_t pid, std::int64_t now_usec);
        [[nodiscard]] std::unique_ptr<Hand> remove(std::uint32_t child);
        [[nodiscard]] std::vector<Hand*> working() const;

        void cancel(std::uint64_t connection);                // jobs that wait
        [[nodiscard]] bool disown(std::uint64_t connection);  // whether one is being done
        [[nodiscard]] std::unique_ptr<Job> pop_older(std::int64_t usec);
        [[nodiscard]] std::unique_ptr<Job> pop_if(const std::function<bool(const Job&)>& fits);  // not of quarantine

        void fill();  // as many as there should be, and none that has nothing to do any more
        void dispatch(std::int64_t now_usec);
        [[nodiscard]] bool settled() const;

        Pool intake;
        Pool disposal;
        Quarantine quarantine;
        Holders holders;
};

}  // namespace sockbroker::hands
