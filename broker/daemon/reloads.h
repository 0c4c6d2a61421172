// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a policy comes into force: at the start at once, later in steps. What takes long with a million bindings
// (reading, checking, compiling, writing to the kernel) is the worker's; the loop goes on and judges by the policy in
// force. In between, and at the end, the loop does what registrations touch too: numbers of services, who departs. One
// change at a time; who asks meanwhile has the next one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/departures.h"
#include "broker/daemon/held_sockets.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/policy_source.h"
#include "broker/daemon/policy_status.h"
#include "broker/daemon/reply_programs.h"
#include "broker/daemon/routes.h"
#include "broker/daemon/worker.h"
#include "broker/names/names.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Reloads {
public:
        // The worker must end before this does, and the names too: both have what calls it. From `departures` on: what
        // follows a policy that has come into force.
        Reloads(PolicySource source, PolicyInForce& policy, Registry& registry, Names& names, Worker& worker,
                Departures& departures, ReplyPrograms& replies, HeldSockets& held, Routes& routes, Audit& audit);

        // The policy of the folders, else the copy of the one last taken, else none at all (degraded). Its routes are
        // what does not follow yet; null: none could be taken.
        [[nodiscard]] std::shared_ptr<const RoutePlan> load_at_start();
        // After that: calls `then` when the host has answered for all names of the policy, or does not. At once where
        // no service has HoldSec=, which they matter to (notify_start.h).
        void when_names_are_known(std::function<void()> then);

        // Loads the policy of the folders anew; rows of the answer are its diagnostics. Asked while another one is on
        // its way, it begins after that. With `confirm_usec` the policy before comes back unless keep() is called in
        // time.
        void reload(Reply reply, std::int64_t confirm_usec = 0);
        // The policy on trial is in force for good from now on; `reply` is called when its copy is written.
        void keep(const Reply& reply);
        // To be called every second or so, and at trial_end(). Goes back where a policy was not kept in time, and
        // begins what there was no memory for when it was asked.
        void look_at_clock();
        // When the time of the policy on trial is over, CLOCK_MONOTONIC in microseconds; none is: never. Another one is
        // told by on_status().
        [[nodiscard]] std::uint64_t trial_end() const {
                return trial_ ? static_cast<std::uint64_t>(trial_->until_usec) : UINT64_MAX;
        }
        // What a reload would do, and nothing else.
        void diff(Reply reply);

        // Looks the names of Interface= up again, and installs the rules anew if one means another interface now. Says
        // how long that took the last time, in microseconds.
        std::uint64_t refresh_interfaces();

        // The rules in the kernel may not be those of the policy in force.
        [[nodiscard]] bool changing() const { return changing_; }
        [[nodiscard]] PolicyStatus status() const;
        [[nodiscard]] std::string status_text() const;  // STATUS= for systemd, one printable line
        // Called when it may have changed.
        void on_status(std::function<void()> changed) { on_status_ = std::move(changed); }

private:
        // Of services that come, go or stay, at once: some milliseconds.
        static constexpr std::size_t kServicesPerTurn = 2048;
        static constexpr std::int64_t kGoBackAgainUsec = 5'000'000;  // where that has failed

        struct Change;
        using ChangePtr = std::shared_ptr<Change>;
        using Step = void (Reloads::*)(const ChangePtr&);
        using Job = void (Reloads::*)(Change&) const;           // the worker's
        using Doubtful = std::map<AccountName, AccountAnswer>;  // names that match nobody, or have no answer

        [[nodiscard]] Result<std::shared_ptr<const RoutePlan>> apply(Policy policy);  // at once; its routes
        void ask_names_after_start();
        // What is on record of a trial, for a start with the policy that `loaded` is.
        struct TrialAtStart;
        [[nodiscard]] TrialAtStart look_for_trial(const LoadedPolicy& loaded) const;
        [[nodiscard]] std::shared_ptr<const RoutePlan> go_back_at_start(TrialAtStart& found,
                                                                        const LoadedPolicy& loaded);
        void follow_at_start(TrialAtStart found, LoadedPolicy loaded);

        void begin_reload();
        void begin_diff();
        void begin_copy();
        void begin(const ChangePtr& change, Step first);
        void go_on(const ChangePtr& change, Step step);
        void in_worker(const ChangePtr& change, Job job, Step then);
        // In this order; those that only compare leave it after the names.
        void read(const ChangePtr& change);
        void find_interfaces_again(const ChangePtr& change);
        void find_interfaces_job(Change& change) const;
        void install_if_moved(const ChangePtr& change);
        void read_job(Change& change) const;
        void ask_names(const ChangePtr& change);
        void check_names(const ChangePtr& change);
        void check_names_job(Change& change) const;
        void install(const ChangePtr& change);
        void add_services(const ChangePtr& change);
        void no_job(Change& change) const;
        void install_job(Change& change) const;
        void finish(const ChangePtr& change);
        void finish_others(const ChangePtr& change);
        void finish_reload(Change& change, Removal removal) noexcept;
        void finish_back(Change& change, Removal removal) noexcept;
        void finish_interfaces(Change& change, const Removal& removal) noexcept;
        void compare(const ChangePtr& change);
        void compare_job(Change& change) const;
        void finish_diff(const ChangePtr& change);
        // Of a keep.
        void copy(const ChangePtr& change);
        void copy_job(Change& change) const;
        void write_copy(Change& change) const;
        void finish_copy(const ChangePtr& change);
        void end_copy(Change& change);

        void refuse(Change& change, const std::string& why);
        void end(Change& change);
        void begin_what_waits() noexcept;
        void begin_next();

        void ask_each(const std::vector<AccountName>& names, std::function<void()> then);
        [[nodiscard]] Doubtful find_doubtful(const std::vector<AccountName>& names) const;
        [[nodiscard]] static std::vector<Diagnostic> account_warnings(const Policy& policy, const Doubtful& doubtful);
        // What follows a policy that has come into force. Whatever kept some of it from being done is the removal's
        // error, if that has none.
        void follow(Removal& removal) noexcept;
        void follow(Removal& removal, Change& change) noexcept;
        void degrade_for(const Removal& removal) noexcept;
        [[nodiscard]] std::optional<Error> revoke_unadmitted();
        void begin_trial(Change& change, std::string digest_before) noexcept;
        [[nodiscard]] TrialRecord record_of(const std::string& policy, const std::string& before,
                                            std::int64_t until_usec) const;
        void plan_record(Change& change) const;
        void install_on_trial(Change& change) const;
        void put_record(Change& change) const noexcept;
        void go_on_with_trial(Change& change) noexcept;
        [[nodiscard]] std::string tell_refused(const Change& change, const std::string& why);

        const PolicySource source_;
        PolicyInForce& policy_;
        Registry& registry_;
        Names& names_;
        Worker& worker_;
        Departures& departures_;
        ReplyPrograms& replies_;
        HeldSockets& held_;
        Routes& routes_;
        Audit& audit_;
        PolicyStatus status_;
        struct Trial {
                std::shared_ptr<const Policy> before;
                std::string digest_before;
                std::vector<PolicyFile> files;  // of the one on trial
                std::int64_t until_usec = 0;    // CLOCK_MONOTONIC
        };
        std::optional<Trial> trial_;
        bool changing_ = false;       // one is on its way
        std::vector<Reply> waiting_;  // for the reload after that
        std::int64_t waiting_confirm_usec_ = 0;
        std::vector<Reply> waiting_diffs_;
        std::vector<Reply> waiting_keeps_;
        std::vector<PolicyFile> kept_;  // of the policy kept last, if its copy is still to be begun
        bool interfaces_changed_ = false;
        std::uint64_t interfaces_took_usec_ = 0;
        std::function<void()> on_status_;
};

}  // namespace sockbroker
