// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way of every change.
#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/base/printable.h"
#include "broker/base/thrown.h"
#include "broker/base/wall_clock.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/change.h"
#include "broker/daemon/diagnostics.h"
#include "broker/policy/findings.h"
#include "broker/policy/values.h"

namespace sockbroker {

namespace {

// All names of a policy may take so long together; what then has no answer counts as it was last known.
constexpr std::int64_t kNamesOfPolicyUsec = 5'000'000;

constexpr std::string_view kNothingBefore =
        "no policy of this broker is in force that could come back, what the kernel has is of one before it; reload "
        "without --confirm=";

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
        if (change->over) {
                return;  // it was refused for what was thrown while somebody was asked, who has answered now
        }
        try {
                (this->*step)(change);
        } catch (const std::exception& error) {
                refuse(*change, text_of(error));
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
        // The rules of a broker before this one, whose policy is lost, would be replaced by none at all.
        if (change->kind == Change::Kind::kReload && change->confirm_usec != 0 && status_.digest.empty()) {
                return refuse(*change, std::string(kNothingBefore));
        }
        policy_.prepare();
        add_services(change);
}

void Reloads::add_services(const ChangePtr& change) {
        const auto all = registry_.begin_change(change->numbers, *change->policy, kServicesPerTurn);
        if (!all) {
                return refuse(*change, all.error().text());
        }
        if (*all) {
                plan_record(*change);
                in_worker(change, &Reloads::install_job, &Reloads::finish);
        } else {
                in_worker(change, &Reloads::no_job, &Reloads::add_services);
        }
}

// So that others have their turn before the next step.
void Reloads::no_job(Change& /*change*/) const {}

void Reloads::install_job(Change& change) const {
        if (change.record) {
                install_on_trial(change);
        } else {
                change.installed = registry_.install(change.numbers, *change.policy, change.interfaces);
        }
        if (!change.installed && change.kind == Change::Kind::kReload) {
                change.blamed = source_.check(*change.policy);  // the lines that it is about
        }
        if (change.installed && change.kind != Change::Kind::kInterfaces) {
                // Without memory for them the routes of before stay.
                (void)guarded(
                        [&] { change.routes = std::make_shared<const RoutePlan>(route_plan_of(*change.policy)); });
        }
        if (change.kind == Change::Kind::kBack) {
                (void)guarded([&] { change.on_disk = source_.digest(); });
        }
        // One that is to be kept first is not what a restart should begin with.
        if (!change.installed || change.kind != Change::Kind::kReload || change.confirm_usec != 0) {
                return;
        }
        put_record(change);
        if (change.loaded.supported) {
                write_copy(change);
        }
}

}  // namespace sockbroker
