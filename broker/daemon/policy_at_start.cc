// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The policy of a start: that of the folders or, where it is refused, the copy of the one last taken.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/change.h"
#include "broker/policy/findings.h"
#include "broker/registry/check_rules.h"

namespace sockbroker {

std::string count_errors(std::size_t errors) {
        return fmt::format("{} error{}", errors, errors == 1 ? "" : "s");
}

std::string first_error(const std::vector<Diagnostic>& diagnostics) {
        constexpr std::size_t kShown = 300;
        const auto first = std::ranges::find(diagnostics, Severity::kError, &Diagnostic::severity);
        if (first == diagnostics.end()) {
                return {};
        }
        const auto text = first->to_string();
        return fmt::format(" (the first: {}{})", std::string_view(text).substr(0, kShown),
                           text.size() > kShown ? "..." : "");
}

bool Broker::Loaded::add_errors(std::vector<Diagnostic> more) {
        errors += more.size();
        std::ranges::move(more, std::back_inserter(diagnostics));
        return !more.empty();
}

Broker::Loaded Broker::load_folders() const {
        auto found = read_policy_files(options_.config_dirs);
        const auto config = load_broker_config(options_.config_dirs);
        auto parsed = parse_policy(found.files, limits_, config.config.limits);
        Loaded loaded{std::move(found.files), std::move(parsed.policy), std::move(found.diagnostics), found.any};
        loaded.digest = digest_of(loaded.files);
        loaded.errors = loaded.diagnostics.size() + parsed.errors;
        for (const auto& path : folders_.out_of_reach()) {
                loaded.errors++;
                loaded.diagnostics.insert(
                        loaded.diagnostics.begin(),
                        {path, 0, Severity::kError,
                         "another file system was mounted over it since the start (a merge of systemd-sysext or "
                         "systemd-confext?), and the broker's sandbox keeps to what was there before: restart "
                         "sockbrokerd, nothing is lost by that"});
        }
        for (auto diagnostic : config.diagnostics) {
                // What is wrong there keeps its default at the next start, and no policy from being taken.
                diagnostic.severity = Severity::kWarning;
                loaded.diagnostics.push_back(std::move(diagnostic));
        }
        std::ranges::move(parsed.diagnostics, std::back_inserter(loaded.diagnostics));
        // Where all interfaces are there, the kernel's rules will be those that are checked here.
        if (loaded.errors == 0 && loaded.policy &&
            !has_all_interfaces(*loaded.policy, find_interfaces(*loaded.policy, interfaces_now()))) {
                loaded.add_errors(check_rules(*loaded.policy, limits_.max_bindings));
        }
        if (loaded.errors > 0) {
                loaded.policy.reset();
        } else if (loaded.policy) {
                if (!loaded.supported && read_policy_copy(options_.policy_copy())) {
                        loaded.diagnostics.push_back(
                                {options_.config_dirs.front() + "/conf.d", 0, Severity::kWarning,
                                 fmt::format("there is no policy file, here or in any other directory, so there is no "
                                             "service; the copy of the last-known-good policy stays in {}",
                                             options_.policy_copy())});
                }
                std::ranges::move(first_of_each_file(unknown_interfaces(*loaded.policy, interfaces_now())),
                                  std::back_inserter(loaded.diagnostics));
        }
        return loaded;
}

void Broker::load_at_start() {
        auto loaded = load_folders();
        tell_diagnostics(loaded.diagnostics, loaded.errors);
        std::string why;
        if (loaded.policy) {
                why = apply(*loaded.policy);
                if (why.empty()) {
                        policy_digest_ = loaded.digest;
                        if (!loaded.supported) {
                                return degrade({});
                        }
                        const auto written = write_policy_copy(options_.policy_copy(), loaded.files);
                        return degrade(written ? std::string{} : written.error().text());
                }
                loaded.diagnostics.clear();
                if (loaded.add_errors(check_rules(*loaded.policy, limits_.max_bindings))) {
                        tell_diagnostics(loaded.diagnostics, loaded.errors);
                        loaded.policy.reset();
                }
        }
        if (!loaded.policy) {
                why = fmt::format("policy refused at start, {}{}", count_errors(loaded.errors),
                                  first_error(loaded.diagnostics));
        }
        note_refused(loaded.digest);
        audit_.write({.action = Action::kReloadFailed, .priority = 3, .message = why});

        const auto copy = read_policy_copy(options_.policy_copy());
        if (!copy) {
                return degrade(fmt::format("{}; no copy of a last-known-good policy: {}", why, copy.error().text()));
        }
        auto parsed = parse_policy(*copy, limits_);
        const std::string failed = parsed.policy ? apply(std::move(*parsed.policy)) : "the copy is damaged";
        policy_digest_ = failed.empty() ? digest_of(*copy) : "";
        degrade(why + (failed.empty() ? "; the last-known-good policy is in force"
                                      : "; the last-known-good policy cannot be applied: " + failed));
}

// Empty: it is not, or not any more.
void Broker::degrade(std::string why) {
        if (degraded_.empty() || why.empty()) {
                degraded_since_usec_ = why.empty() ? 0 : wall_usec();
        }
        degraded_ = std::move(why);
}

std::string Broker::apply(Policy policy) {
        auto interfaces = find_interfaces(policy, interfaces_now());
        auto departures = registry_.set_policy(policy, interfaces);
        if (!departures) {
                return departures.error().text();
        }
        take_routes(std::make_shared<const RoutePlan>(route_plan_of(policy)));
        take(std::make_shared<const Policy>(std::move(policy)), std::move(interfaces), *departures);
        ask_names_after_start();
        return {};
}

}  // namespace sockbroker
