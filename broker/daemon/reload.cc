// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way of every change, and a reload's end.
#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/base/printable.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/change.h"
#include "broker/daemon/diagnostics.h"
#include "broker/daemon/revocation.h"
#include "broker/daemon/wall_clock.h"
#include "broker/policy/findings.h"
#include "broker/policy/values.h"

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

}  // namespace

Reloads::Reloads(PolicySource source, PolicyInForce& policy, Registry& registry, Names& names, Worker& worker,
                 Departures& departures, ReplyPrograms& replies, HeldSockets& held, Routes& routes, Audit& audit)
        : source_(std::move(source)),
          policy_(policy),
          registry_(registry),
          names_(names),
          worker_(worker),
          departures_(departures),
          replies_(replies),
          held_(held),
          routes_(routes),
          audit_(audit) {}

PolicyStatus Reloads::status() const {
        PolicyStatus status = status_;
        status.trial_until_usec = trial_ ? wall_usec() + trial_->until_usec - steady_usec() : 0;
        return status;
}

std::string Reloads::status_text() const {
        return printable(fmt::format("{} services, {} bindings{}", policy_->services.size(), count_bindings(*policy_),
                                     status_.degraded.empty() ? "" : ", degraded: " + status_.degraded));
}

// The rules are in force.
void Reloads::take(std::shared_ptr<const Policy> policy, Interfaces interfaces,
                   const std::vector<Departure>& departures) {
        policy_.replace(std::move(policy), std::move(interfaces));
        departures_.tell(departures, Action::kRevoke, "policy has no such service any more");
        revoke_unadmitted();
        replies_.follow_policy();
        held_.follow_policy();
}

// Takes away what is not admitted any more, by what is known of names.
void Reloads::revoke_unadmitted() {
        const auto accounts = names_.last_known();
        const auto gone = [&](const std::string& service, const Registration& registration) {
                return !why_revoked(*policy_, service, registration, accounts).empty();
        };
        departures_.tell(registry_.remove_all(gone), Action::kRevoke, "policy does not admit it any more");
}

void Reloads::reload(Reply reply, std::int64_t confirm_usec) {
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
void Reloads::begin_reload() {
        ChangePtr change;
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
        begin(change, &Reloads::read);
}

void Reloads::begin(const ChangePtr& change, Step first) {
        changing_ = true;
        go_on(change, first);
}

// Whatever is thrown, which may not cross the C callback: or no change would ever begin again.
void Reloads::go_on(const ChangePtr& change, Step step) {
        try {
                (this->*step)(change);
        } catch (const std::exception& error) {
                refuse(*change, error.what());
        }
}

void Reloads::in_worker(const ChangePtr& change, Job job, Step then) {
        worker_.run([this, change, job] { (this->*job)(*change); },
                    [this, change, then](const std::string& failure) {
                            if (failure.empty()) {
                                    go_on(change, then);
                            } else {
                                    refuse(*change, failure);
                            }
                    });
}

void Reloads::read(const ChangePtr& change) {
        in_worker(change, &Reloads::read_job, &Reloads::ask_names);
}

void Reloads::read_job(Change& change) const {
        change.loaded = source_.load();
        if (change.loaded.policy) {
                change.policy = std::make_shared<const Policy>(std::move(*change.loaded.policy));
                change.interfaces = find_interfaces(*change.policy, interfaces_now());
                change.names = account_names(*change.policy);
        }
}

void Reloads::ask_names(const ChangePtr& change) {
        ask_each(change->names, [this, change] { go_on(change, &Reloads::check_names); });
}

// Once, and outside the loop, which goes on meanwhile.
void Reloads::ask_each(const std::vector<AccountName>& names, std::function<void()> then) {
        std::vector<Question> questions;
        questions.reserve(names.size());
        std::ranges::transform(names, std::back_inserter(questions), question_of);
        names_.ask(questions, Names::Urgency::kPolicy, kNamesOfPolicyUsec, {}, std::move(then));
}

void Reloads::check_names(const ChangePtr& change) {
        change->doubtful = find_doubtful(change->names);
        in_worker(change, &Reloads::check_names_job, &Reloads::install);
}

Reloads::Doubtful Reloads::find_doubtful(const std::vector<AccountName>& names) const {
        Doubtful doubtful;
        const auto accounts = names_.last_known();
        for (const auto& name : names) {
                const auto answer =
                        name.kind == AccountKind::kUser ? accounts.user(name.name) : accounts.group(name.name);
                const auto* known = names_.find(name);
                const bool silent = known != nullptr && known->silent_since_usec != 0;
                const auto id = answer.id();
                if (silent || !id || is_overflow_id(*id)) {
                        doubtful.emplace(name, silent ? AccountAnswer::none() : answer);
                }
        }
        return doubtful;
}

std::vector<Diagnostic> Reloads::account_warnings(const Policy& policy, const Doubtful& doubtful) {
        if (doubtful.empty()) {
                return {};
        }
        const auto look = [&](AccountKind kind, const std::string& name) {
                const auto found = doubtful.find({kind, name});
                return found == doubtful.end() ? AccountAnswer(std::optional(0U)) : found->second;
        };
        return first_of_each_file(unknown_accounts(
                policy, {.user = [&](const std::string& name) { return look(AccountKind::kUser, name); },
                         .group = [&](const std::string& name) { return look(AccountKind::kGroup, name); }}));
}

void Reloads::check_names_job(Change& change) const {
        if (change.policy != nullptr) {
                std::ranges::move(account_warnings(*change.policy, change.doubtful),
                                  std::back_inserter(change.loaded.diagnostics));
        }
}

void Reloads::install(const ChangePtr& change) {
        if (change->kind == Change::Kind::kDiff) {
                return compare(change);
        }
        if (change->kind == Change::Kind::kReload) {
                tell_diagnostics(audit_, change->loaded.diagnostics, change->loaded.errors);
                change->tell();
        }
        if (change->policy == nullptr) {
                return refuse(*change, {});
        }
        auto numbers = registry_.begin_change(*change->policy);
        if (!numbers) {
                return refuse(*change, numbers.error().text());
        }
        change->numbers = std::move(*numbers);
        in_worker(change, &Reloads::install_job, &Reloads::finish);
}

void Reloads::install_job(Change& change) const {
        change.installed = registry_.install(change.numbers, *change.policy, change.interfaces);
        if (!change.installed && change.kind == Change::Kind::kReload) {
                change.blamed = source_.check(*change.policy);  // the lines that it is about
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
                change.copied = source_.write_copy(change.loaded.files);
        } catch (const std::exception& error) {
                // The rules are in force: whatever throws from here on must not look as if they were refused.
                change.copied = fail(error.what());
        }
}

void Reloads::finish(const ChangePtr& change) {
        if (!change->installed) {
                auto& loaded = change->loaded;
                if (!loaded.add_errors(std::move(change->blamed))) {
                        return refuse(*change, change->installed.error().text());
                }
                tell_diagnostics(audit_, loaded.diagnostics, loaded.errors);
                loaded.diagnostics.insert(loaded.diagnostics.begin(), change->told->begin(), change->told->end());
                change->tell();
                return refuse(*change, {});
        }
        if (change->kind == Change::Kind::kReload) {
                (void)guarded([&] { change->lost = rows_of_revoked(*change->policy, registry_, names_.last_known()); });
        }
        // Whatever goes wrong from here on, the numbers are in use.
        const auto departures = registry_.finish_change(std::exchange(change->numbers, {}), *change->policy);
        if (change->kind == Change::Kind::kBack) {
                finish_back(*change, departures);
        } else if (change->kind == Change::Kind::kInterfaces) {
                finish_interfaces(*change);
        } else {
                finish_reload(*change, departures);
        }
        end();
}

void Reloads::finish_interfaces(Change& change) {
        audit_.note(6, fmt::format("rules follow a change of interfaces: {}",
                                   name_changes(policy_.interfaces(), change.interfaces)));
        policy_.set_interfaces(std::move(change.interfaces));
        const auto took = std::chrono::steady_clock::now() - change.began;
        interfaces_took_usec_ =
                static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count());
}

// The policy is in force, and nothing from here on may look as if it had been refused.
void Reloads::finish_reload(Change& change, const std::vector<Departure>& departures) {
        status_.reloads_taken++;
        std::string message;
        bool whole = false;
        (void)guarded([&] {
                begin_trial(change);
                take(change.policy, std::move(change.interfaces), departures);
                routes_.take(std::move(change.routes));
                status_.digest = change.loaded.digest;
                names_.keep_only(change.names);
                status_.degrade(change.copied ? std::string{} : change.copied.error().text());
                message = fmt::format("policy taken: {}", status_text());
                if (change.confirm_usec != 0) {
                        message += ", and the one before comes back unless this one is kept in time";
                }
                audit_.write({.action = Action::kReload, .message = message, .result = "ok"});
                whole = true;
        });
        if (!whole) {
                (void)guarded(
                        [&] { status_.degrade("not all of the policy in force was carried out for want of memory"); });
        }
        change.answer(ResultCode::kOk, message);
}

void Reloads::Change::answer(ResultCode code, const std::string& message) {
        for (const auto& reply : std::exchange(replies, {})) {
                reply_with(reply, [&] {
                        return Answer{.code = code, .message = message, .rows = diagnostic_rows(told, lost)};
                });
        }
}

// Without `why`: for what the diagnostics say. Whatever memory there is for telling it, the next reload can begin.
void Reloads::refuse(Change& change, const std::string& why) {
        (void)guarded([&] { registry_.abandon_change(change.numbers); });
        std::string message;
        (void)guarded([&] { message = tell_refused(change, why); });
        (void)guarded([&] {
                change.answer(ResultCode::kMalformed, change.kind == Change::Kind::kDiff
                                                              ? why.empty() ? "a reload would refuse the policy" : why
                                                              : message);
        });
        end();
}

// What to answer; the reason of `degraded` has the first error too.
std::string Reloads::tell_refused(const Change& change, const std::string& why) {
        if (change.kind == Change::Kind::kDiff) {
                return {};  // nothing was to change
        }
        if (change.kind == Change::Kind::kBack) {
                status_.degrade(fmt::format("the policy before the one in force cannot come back: {}", why));
                audit_.note(3, status_.degraded);
                return {};
        }
        if (change.kind == Change::Kind::kInterfaces) {
                audit_.note(3, fmt::format("cannot follow a change of interfaces ({}): {}",
                                           name_changes(policy_.interfaces(), change.interfaces), why));
                return {};
        }
        status_.reloads_refused++;
        status_.refuse(change.loaded.digest);
        // Whoever asked gets each error beside it; `status` and systemd have no other line than this.
        auto message = why.empty() ? fmt::format("policy refused, {}, the running policy stays",
                                                 count_errors(change.loaded.errors))
                                   : fmt::format("policy refused, the running policy stays: {}", why);
        status_.degrade(message + (why.empty() && change.told != nullptr ? first_error(*change.told) : ""));
        audit_.write(
                {.action = Action::kReloadFailed, .priority = 3, .message = status_.degraded, .result = "malformed"});
        return message;
}

void Reloads::end() {
        changing_ = false;
        if (on_status_) {
                on_status_();
        }
        begin_next();
}

void Reloads::begin_next() {
        if (!waiting_.empty()) {
                begin_reload();
        } else if (!waiting_diffs_.empty()) {
                begin_diff();
        } else if (std::exchange(interfaces_changed_, false)) {
                (void)refresh_interfaces();
        }
}

}  // namespace sockbroker
