// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a policy comes into force: at the start at once, later in steps. What takes long with a million bindings
// (reading, checking, compiling, writing to the kernel) is the worker's; the loop goes on and judges by the policy in
// force. In between, and at the end, the loop does what registrations touch too: numbers of services, who departs.
#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/change.h"
#include "broker/daemon/event.h"
#include "broker/daemon/worker.h"
#include "broker/policy/findings.h"
#include "broker/policy/values.h"
#include "broker/registry/check_rules.h"

namespace sockbroker {

namespace {

std::string name_changes(const Interfaces& before, const Interfaces& after) {
        std::string changes;
        for (const auto& [name, index] : after) {
                const auto old = before.find(name);
                if (old == before.end() || old->second != index) {
                        changes += fmt::format("{}{} {}", changes.empty() ? "" : ", ", name,
                                               index == 0 ? "is gone" : fmt::format("has index {}", index));
                }
        }
        return changes;
}

// All names of a policy may take so long together; what then has no answer counts as it was last known.
constexpr std::int64_t kNamesOfPolicyUsec = 5'000'000;

std::vector<Question> questions_of(const std::vector<AccountName>& names) {
        std::vector<Question> questions;
        questions.reserve(names.size());
        std::ranges::transform(names, std::back_inserter(questions), question_of);
        return questions;
}

}  // namespace

void Broker::in_worker(const std::shared_ptr<Change>& change, void (Broker::*job)(Change&) const,
                       void (Broker::*then)(const std::shared_ptr<Change>&)) {
        const auto done = [this, change, then](const std::string& failure) {
                try {
                        if (!failure.empty()) {
                                return refuse_change(change, failure);
                        }
                        (this->*then)(change);
                } catch (const std::exception& error) {  // none may cross the C callback
                        refuse_change(change, error.what());
                }
        };
        if (worker_ != nullptr) {
                worker_->run([this, change, job] { (this->*job)(*change); }, done);
        } else {
                (this->*job)(*change);
                done({});
        }
}

// Nobody waits for names at the start. Until they are known nothing is taken away for them.
void Broker::ask_names_after_start() {
        const auto change = std::make_shared<Change>();
        change->policy = policy_;
        change->names = account_names(*policy_);
        names_.ask(questions_of(change->names), Names::Urgency::kPolicy, kNamesOfPolicyUsec, {}, [this, change] {
                if (change->policy != policy_) {
                        return;  // a reload has asked since
                }
                find_doubtful(names_.last_known(), *change);
                tell_diagnostics(warnings_of(*change), 0);
                revoke_unadmitted();
        });
}

// The rules are in force.
void Broker::take(std::shared_ptr<const Policy> policy, Interfaces interfaces,
                  const std::vector<Departure>& departures) {
        policy_ = std::move(policy);
        if (const auto before = snapshot_before_.lock()) {
                before->policy.reset();
        }
        snapshot_before_ = std::exchange(snapshot_, std::make_shared<Snapshot>(policy_));
        interfaces_ = std::move(interfaces);
        policy_since_usec_ = wall_usec();
        tell_departures(departures, Action::kRevoke, "policy has no such service any more");
        revoke_unadmitted();
        follow_replies();
        follow_holds();
}

// A reload takes away what the new policy would refuse.
void Broker::revoke_unadmitted() {
        const auto accounts = names_.last_known();
        const auto gone = [&](const std::string& service, const Registration& registration) {
                const auto* found = policy_->find(service);
                return found == nullptr || !stays_admitted(*found, registration.registrant, accounts) ||
                       std::ranges::none_of(found->bindings, [&](const Binding& binding) {
                               return registration.serves_in(binding.protocol, binding.prefix.address.family);
                       });
        };
        tell_departures(registry_.remove_all(gone), Action::kRevoke, "policy does not admit it any more");
}

void Broker::reload(Reply reply, std::int64_t confirm_usec) {
        // Of several that are answered together the shortest time counts, and any at all.
        waiting_confirm_usec_ = confirm_usec == 0            ? waiting_confirm_usec_
                                : waiting_confirm_usec_ == 0 ? confirm_usec
                                                             : std::min(confirm_usec, waiting_confirm_usec_);
        waiting_.push_back(std::move(reply));
        if (!changing_) {
                begin_reload();
        }
}

// All that wait are answered by this one, which begins after they asked.
void Broker::begin_reload() {
        std::shared_ptr<Change> change;
        (void)guarded([&] { change = std::make_shared<Change>(); });
        auto replies = std::exchange(waiting_, {});
        if (change == nullptr) {
                for (const auto& reply : replies) {
                        reply_with(reply, [] { return Answer{.code = ResultCode::kInternal, .message = "no memory"}; });
                }
                return;
        }
        change->replies = std::move(replies);
        change->confirm_usec = std::exchange(waiting_confirm_usec_, 0);
        changing_ = true;
        try {
                in_worker(change, &Broker::read_change, &Broker::ask_names);
        } catch (const std::exception& error) {  // or no reload would ever begin again
                refuse_change(change, error.what());
        }
}

void Broker::read_change(Change& change) const {
        change.loaded = load_folders();
        if (change.loaded.policy) {
                change.policy = std::make_shared<const Policy>(std::move(*change.loaded.policy));
                change.interfaces = find_interfaces(*change.policy, interfaces_now());
                change.names = account_names(*change.policy);
        }
}

// Each once, and outside the loop, which goes on meanwhile.
void Broker::ask_names(const std::shared_ptr<Change>& change) {
        names_.ask(questions_of(change->names), Names::Urgency::kPolicy, kNamesOfPolicyUsec, {}, [this, change] {
                try {
                        find_doubtful(names_.last_known(), *change);
                        in_worker(change, &Broker::check_names, &Broker::number_change);
                } catch (const std::exception& error) {
                        refuse_change(change, error.what());
                }
        });
}

void Broker::find_doubtful(const Accounts& accounts, Change& change) const {
        for (const auto& name : change.names) {
                const auto answer =
                        name.kind == AccountKind::kUser ? accounts.user(name.name) : accounts.group(name.name);
                const auto* known = names_.find(name);
                const bool silent = known != nullptr && known->silent_since_usec != 0;
                const auto id = answer.id();
                if (silent || !id || is_overflow_id(*id)) {
                        change.doubtful.emplace(name, silent ? AccountAnswer::none() : answer);
                }
        }
}

std::vector<Diagnostic> Broker::warnings_of(const Change& change) {
        const auto look = [&](AccountKind kind, const std::string& name) {
                const auto found = change.doubtful.find({kind, name});
                return found == change.doubtful.end() ? AccountAnswer(std::optional(0U)) : found->second;
        };
        if (change.doubtful.empty()) {
                return {};
        }
        return first_of_each_file(unknown_accounts(
                *change.policy, {.user = [&](const std::string& name) { return look(AccountKind::kUser, name); },
                                 .group = [&](const std::string& name) { return look(AccountKind::kGroup, name); }}));
}

void Broker::check_names(Change& change) const {
        if (change.policy != nullptr) {
                std::ranges::move(warnings_of(change), std::back_inserter(change.loaded.diagnostics));
        }
}

void Broker::number_change(const std::shared_ptr<Change>& change) {
        if (change->kind == Change::Kind::kDiff) {
                return finish_diff(change);
        }
        if (change->kind == Change::Kind::kReload) {
                tell_diagnostics(change->loaded.diagnostics, change->loaded.errors);
                change->told =
                        std::make_shared<const std::vector<Diagnostic>>(std::exchange(change->loaded.diagnostics, {}));
        }
        if (change->policy == nullptr) {
                return refuse_change(change, {});
        }
        auto numbers = registry_.begin_change(*change->policy);
        if (!numbers) {
                return refuse_change(change, numbers.error().text());
        }
        change->numbers = std::move(*numbers);
        in_worker(change, &Broker::install_change, &Broker::finish_change);
}

void Broker::install_change(Change& change) const {
        change.installed = registry_.install(change.numbers, *change.policy, change.interfaces);
        if (!change.installed && change.kind == Change::Kind::kReload) {
                change.blamed = check_rules(*change.policy, limits_.max_bindings);  // the lines that it is about
        }
        if (change.installed && change.kind != Change::Kind::kInterfaces) {
                // Without memory for them the routes of before stay.
                (void)guarded(
                        [&] { change.routes = std::make_shared<const RoutePlan>(route_plan_of(*change.policy)); });
        }
        // One that is to be kept first is not what a restart should begin with.
        if (!change.installed || change.kind != Change::Kind::kReload || !change.loaded.supported ||
            change.confirm_usec != 0) {
                return;
        }
        try {
                change.copied = write_policy_copy(options_.policy_copy(), change.loaded.files);
        } catch (const std::exception& error) {
                // The rules are in force: whatever throws from here on must not look as if they were refused.
                change.copied = fail(error.what());
        }
}

void Broker::finish_change(const std::shared_ptr<Change>& change) {
        if (!change->installed) {
                auto& loaded = change->loaded;
                if (!loaded.add_errors(std::move(change->blamed))) {
                        return refuse_change(change, change->installed.error().text());
                }
                tell_diagnostics(loaded.diagnostics, loaded.errors);
                loaded.diagnostics.insert(loaded.diagnostics.begin(), change->told->begin(), change->told->end());
                change->told = std::make_shared<const std::vector<Diagnostic>>(std::move(loaded.diagnostics));
                return refuse_change(change, {});
        }
        if (change->kind == Change::Kind::kReload) {
                (void)guarded([&] { change->lost = sockets_lost_to(*change->policy); });
        }
        // Whatever goes wrong from here on, the numbers are in use.
        const auto departures = registry_.finish_change(std::exchange(change->numbers, {}), *change->policy);
        if (change->kind == Change::Kind::kBack) {
                return finish_back(change, departures);
        }
        if (change->kind == Change::Kind::kInterfaces) {
                note(6, fmt::format("rules follow a change of interfaces: {}",
                                    name_changes(interfaces_, change->interfaces)));
                interfaces_ = std::move(change->interfaces);
                const auto took = std::chrono::steady_clock::now() - change->began;
                interfaces_took_usec_ =
                        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count());
                return end_change();
        }
        // The policy is in force, and nothing from here on may look as if it had been refused.
        tally_.reloads_taken++;
        std::string message;
        bool whole = false;
        (void)guarded([&] {
                begin_trial(*change);
                take(change->policy, std::move(change->interfaces), departures);
                take_routes(std::move(change->routes));
                policy_digest_ = change->loaded.digest;
                names_.keep_only(change->names);
                degrade(change->copied ? std::string{} : change->copied.error().text());
                message = fmt::format("policy taken: {}", status_text());
                if (change->confirm_usec != 0) {
                        message += ", and the one before comes back unless this one is kept in time";
                }
                audit_.write({.action = Action::kReload, .message = message, .result = "ok"});
                whole = true;
        });
        if (!whole) {
                (void)guarded([&] { degrade("not all of the policy in force was carried out for want of memory"); });
        }
        answer_change(*change, ResultCode::kOk, message);
        end_change();
}

// Each asker once.
void Broker::answer_change(Change& change, ResultCode code, const std::string& message) {
        for (const auto& reply : std::exchange(change.replies, {})) {
                reply_with(reply, [&] {
                        return Answer{
                                .code = code, .message = message, .rows = diagnostic_rows(change.told, change.lost)};
                });
        }
}

// Without `why`: for what the diagnostics say. Whatever memory there is for telling it, the next reload can begin.
void Broker::refuse_change(const std::shared_ptr<Change>& change, const std::string& why) {
        (void)guarded([&] { registry_.abandon_change(change->numbers); });
        std::string message;
        (void)guarded([&] { message = tell_refused(*change, why); });
        (void)guarded([&] {
                answer_change(*change, ResultCode::kMalformed,
                              change->kind == Change::Kind::kDiff
                                      ? why.empty() ? "a reload would refuse the policy" : why
                                      : message);
        });
        end_change();
}

std::string Broker::tell_refused(const Change& change, const std::string& why) {
        if (change.kind == Change::Kind::kDiff) {
                return {};  // nothing was to change
        }
        if (change.kind == Change::Kind::kBack) {
                degrade(fmt::format("the policy before the one in force cannot come back: {}", why));
                note(3, degraded_);
                return {};
        }
        if (change.kind == Change::Kind::kInterfaces) {
                note(3, fmt::format("cannot follow a change of interfaces ({}): {}",
                                    name_changes(interfaces_, change.interfaces), why));
                return {};
        }
        tally_.reloads_refused++;
        note_refused(change.loaded.digest);
        // Whoever asked gets each error beside it; `status` and systemd have no other line than this.
        auto message = why.empty() ? fmt::format("policy refused, {}, the running policy stays",
                                                 count_errors(change.loaded.errors))
                                   : fmt::format("policy refused, the running policy stays: {}", why);
        degrade(message + (why.empty() && change.told != nullptr ? first_error(*change.told) : ""));
        audit_.write({.action = Action::kReloadFailed, .priority = 3, .message = degraded_, .result = "malformed"});
        return message;
}

void Broker::end_change() {
        changing_ = false;
        if (on_status_) {
                on_status_();
        }
        if (!waiting_.empty()) {
                begin_reload();
        } else if (!waiting_diffs_.empty()) {
                begin_diff();
        } else if (std::exchange(interfaces_changed_, false)) {
                (void)refresh_interfaces();
        }
}

std::uint64_t Broker::refresh_interfaces() {
        if (changing_) {
                interfaces_changed_ = true;  // since those were looked up
                return interfaces_took_usec_;
        }
        auto interfaces = find_interfaces(*policy_, interfaces_now());
        if (interfaces == interfaces_) {
                return 0;
        }
        const auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kInterfaces;
        change->policy = policy_;
        change->interfaces = std::move(interfaces);
        changing_ = true;
        try {
                number_change(change);
        } catch (const std::exception& error) {
                refuse_change(change, error.what());
        }
        return interfaces_took_usec_;
}

}  // namespace sockbroker
