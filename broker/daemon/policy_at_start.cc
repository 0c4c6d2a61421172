// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The policy of a start: that of the folders or, where it is refused, the copy of the one last taken. Of one that is on
// trial, or was: trial_at_start.cc.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/daemon/change.h"
#include "broker/daemon/diagnostics.h"
#include "broker/daemon/trial_at_start.h"

namespace sockbroker {

std::shared_ptr<const RoutePlan> Reloads::load_at_start() {
        auto loaded = source_.load();
        tell_diagnostics(audit_, loaded.diagnostics, loaded.errors);
        std::string why;
        if (loaded.policy) {
                auto trial = look_for_trial(loaded);
                if (auto routes = go_back_at_start(trial, loaded)) {
                        return routes;
                }
                const auto routes = apply(*loaded.policy);
                if (routes) {
                        follow_at_start(std::move(trial), std::move(loaded));
                        return *routes;
                }
                why = routes.error().text();
                loaded.diagnostics.clear();
                if (loaded.add_errors(source_.check(*loaded.policy))) {
                        tell_diagnostics(audit_, loaded.diagnostics, loaded.errors);
                        loaded.policy.reset();
                }
        }
        if (!loaded.policy) {
                why = fmt::format("policy refused at start, {}{}", count_errors(loaded.errors),
                                  first_error(loaded.diagnostics));
        }
        status_.refuse(loaded.digest);
        audit_.write({.action = Action::kReloadFailed, .priority = 3, .message = why});

        const auto copy = source_.read_copy();
        if (!copy) {
                status_.degrade(fmt::format("{}; no copy of a last-known-good policy: {}", why, copy.error().text()));
                return nullptr;
        }
        auto parsed = source_.parse(*copy);
        const auto routes = parsed.policy ? apply(std::move(*parsed.policy))
                                          : Result<std::shared_ptr<const RoutePlan>>(
                                                    fail("it is refused" + first_error(parsed.diagnostics)));
        status_.digest = routes ? digest_of(*copy) : "";
        status_.degrade(why + (routes ? "; the last-known-good policy is in force"
                                      : "; the last-known-good policy cannot be applied: " + routes.error().text()));
        return routes.value_or(nullptr);
}

Result<std::shared_ptr<const RoutePlan>> Reloads::apply(Policy policy) {
        auto interfaces = find_interfaces(policy, interfaces_now());
        policy_.prepare();
        auto removal = registry_.set_policy(policy, interfaces);
        if (!removal) {
                return std::unexpected(removal.error());
        }
        auto routes = std::make_shared<const RoutePlan>(route_plan_of(policy));
        policy_.replace(std::make_shared<const Policy>(std::move(policy)), std::move(interfaces));
        follow(*removal);
        ask_names_after_start();
        return routes;
}

// Nobody waits for names at the start. Until they are known nothing is taken away for them.
void Reloads::ask_names_after_start() {
        const auto names = account_names(*policy_);
        ask_each(names, [this, names, policy = policy_.shared()] {
                if (policy != policy_.shared()) {
                        return;  // a reload has asked since
                }
                tell_diagnostics(audit_, account_warnings(*policy, find_doubtful(names)), 0);
                (void)revoke_unadmitted();  // the journal has its error
        });
}

void Reloads::when_names_are_known(std::function<void()> then) {
        if (std::ranges::none_of(policy_->services, [](const Service& one) { return one.hold_usec > 0; })) {
                return then();
        }
        ask_each(account_names(*policy_), std::move(then));
}

}  // namespace sockbroker
