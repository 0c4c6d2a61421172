// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A trial that a broker before this one has begun. While the folders have the policy on trial its promise stands: the
// one before comes back when its time is over, at once where it is over already, and again at each start after that.
// Any other policy there has come later than the trial, which is then over as by a reload.
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/change.h"
#include "broker/daemon/diagnostics.h"
#include "broker/daemon/trial_at_start.h"

namespace sockbroker {

namespace {

constexpr std::string_view kStillOnTrial =
        "the policy on disk is on trial still, and the one before comes back unless this one is kept in time";
constexpr std::string_view kEnded =
        "the policy on disk is not the one on trial any more (reload --confirm=), which ends the trial: it is in force "
        "for good";
constexpr std::string_view kCannotComeBack =
        "the policy on disk is on trial (reload --confirm=), and the one before cannot come back, so a reload must "
        "decide";

std::string not_kept(bool same_boot) {
        return fmt::format(
                "the policy on disk was not kept in time (reload --confirm=), the one before it is in force again, and "
                "a reload takes the one on disk for good ({})",
                same_boot ? "the trial was over when the broker started" : "the machine was booted during the trial");
}

}  // namespace

Reloads::TrialAtStart Reloads::look_for_trial(const LoadedPolicy& loaded) const {
        using Kind = TrialAtStart::Kind;
        const auto read = source_.read_trial();
        if (!read) {
                return {.kind = Kind::kUnknown, .why = read.error().text()};
        }
        const std::optional<TrialRecord>& found = *read;
        if (!found) {
                return {};
        }
        const TrialRecord& record = *found;
        const bool over = is_over(record, source_.boot(), steady_usec());
        if (record.policy != loaded.digest) {
                return {.why = std::string(loaded.supported && !over ? kEnded : "")};
        }
        // The one whose digest is that of no files had none, so there is no copy of it.
        const bool had_files = record.before != digest_of({});
        const auto before = had_files ? source_.read_copy() : Result<std::vector<PolicyFile>>({});
        if (!before) {
                return {.kind = Kind::kUnknown, .why = fmt::format("{}: {}", kCannotComeBack, before.error().text())};
        }
        auto parsed = source_.parse(*before);
        if (!parsed.policy) {
                return {.kind = Kind::kUnknown,
                        .why = fmt::format("{}: it is refused{}", kCannotComeBack, first_error(parsed.diagnostics))};
        }
        const auto digest_before = digest_of(*before);
        if (over && digest_before == loaded.digest) {
                return {};  // nothing to go back to: a broker that knew of no records has kept it
        }
        const std::string_view older = digest_before == record.before
                                               ? ""
                                               : "; that is an older one, for there is no copy of the very one before";
        return {.kind = over ? Kind::kOver : Kind::kOnTrial,
                .trial = {.before = std::make_shared<const Policy>(std::move(*parsed.policy)),
                          .digest_before = digest_before,
                          .until_usec = record.until_usec},
                .why = fmt::format("{}{}", over ? not_kept(record.boot == source_.boot()) : std::string(kStillOnTrial),
                                   older)};
}

// Null: it could not be taken; what is on trial is in force then, and the way back is tried again.
std::shared_ptr<const RoutePlan> Reloads::go_back_at_start(TrialAtStart& found, const LoadedPolicy& loaded) {
        if (found.kind != TrialAtStart::Kind::kOver) {
                return nullptr;
        }
        const auto routes = apply(*found.trial.before);
        if (!routes) {
                found.kind = TrialAtStart::Kind::kOnTrial;
                found.trial.until_usec = steady_usec() + kGoBackAgainUsec;
                found.why = fmt::format(
                        "the policy on disk was not kept in time (reload --confirm=), and the one "
                        "before it cannot come back, which is tried again: {}",
                        routes.error().text());
                return nullptr;
        }
        status_.digest = std::move(found.trial.digest_before);
        status_.refuse(loaded.digest);
        status_.degrade(std::move(found.why));
        audit_.write({.action = Action::kReloadFailed, .priority = 4, .message = status_.degraded, .result = "ok"});
        return *routes;
}

// With the policy of the folders in force.
void Reloads::follow_at_start(TrialAtStart found, LoadedPolicy loaded) {
        status_.digest = loaded.digest;
        status_.degrade({});
        if (!found.why.empty()) {
                audit_.note(found.kind == TrialAtStart::Kind::kUnknown ? 3 : 5, found.why);
        }
        switch (found.kind) {
        case TrialAtStart::Kind::kNone: {
                Change change;
                if (loaded.supported) {  // a mount that is missing ends no trial
                        put_record(change);
                        change.copied = source_.write_copy(loaded.files);
                }
                status_.degrade(change.not_written());
                break;
        }
        case TrialAtStart::Kind::kUnknown:
                // The copy stays what it is: nothing else may be left of the policy before.
                status_.degrade(std::move(found.why));
                break;
        default:
                found.trial.files = loaded.supported ? std::move(loaded.files) : std::vector<PolicyFile>();
                trial_ = std::move(found.trial);
        }
}

}  // namespace sockbroker
