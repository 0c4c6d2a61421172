// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/roster.h"

#include <algorithm>
#include <array>
#include <utility>

namespace sockbroker::hands {

namespace {

constexpr std::size_t kMaxOffenders = 4096;

bool offers(Role role) {
        return role == Role::kIntake || role == Role::kHolder;
}

}  // namespace

Roster::Roster(sd_event* event, const Zygote& zygote, const Crew::Options& options, Hand::Hooks hooks)
        : event_(event),
          zygote_(zygote),
          options_(options),
          hooks_(std::move(hooks)),
          slots_(options.staging_slots / Crew::kStagingOfOne) {}

std::unique_ptr<Hand> Roster::fork(Role role, bool for_the_door) noexcept {
        std::unique_ptr<Hand> made;
        (void)succeeds([&] {
                auto slot = slots_.end();
                if (offers(role)) {
                        slot = std::find(slots_.begin(), slots_.end(), false);
                        if (slot == slots_.end()) {
                                return;
                        }
                }
                std::array<int, 3> given{options_.notify, -1, -1};
                if (role == Role::kIntake) {
                        given = {options_.staging, options_.notify, -1};
                } else if (role == Role::kHolder) {
                        given = {options_.staging, options_.manager, options_.notify};
                }
                leaving_.reserve(processes_ + 1);
                ledger_.reserve(processes_ + 1);
                auto hand = Hand::fork(event_, zygote_, next_child(), role, given, for_the_door, hooks_);
                if (!hand) {
                        return;
                }
                processes_++;
                if (slot != slots_.end()) {
                        (*hand)->staging = static_cast<std::uint32_t>(slot - slots_.begin()) * Crew::kStagingOfOne;
                        *slot = true;
                }
                made = std::move(*hand);
        });
        return made;
}

void Roster::free_slots(const Hand& hand) {
        if (offers(hand.role())) {
                slots_[hand.staging / Crew::kStagingOfOne] = false;
        }
}

void Roster::forget(const Hand& hand) {
        free_slots(hand);
        processes_--;
}

void Roster::leave_behind(std::unique_ptr<Hand> hand, std::optional<Charge> charge, std::unique_ptr<Job> job,
                          bool ends) noexcept {
        if (ends) {
                zygote_.kill(hand->child());
                hand->dismiss();
        }
        if (charge) {
                ledger_.add(hand->child(), std::move(*charge));
        }
        leaving_.push_back({std::move(hand), std::move(job), ends});
}

void Roster::end_left_behind() noexcept {
        for (Leaving& one : leaving_) {
                if (!std::exchange(one.ends, true)) {
                        zygote_.kill(one.hand->child());
                        one.hand->dismiss();
                }
        }
}

bool Roster::has_unended() const {
        return std::ranges::any_of(leaving_, [](const Leaving& one) { return !one.ends; });
}

std::size_t Roster::leaving(Role role) const {
        return static_cast<std::size_t>(
                std::ranges::count_if(leaving_, [&](const Leaving& one) { return one.hand->role() == role; }));
}

void Roster::dismiss(std::unique_ptr<Hand> hand) noexcept {
        hand->dismiss();
        leaving_.push_back({std::move(hand), nullptr});
}

std::vector<Roster::Leaving>::iterator Roster::find(std::uint32_t child) {
        return std::ranges::find(leaving_, child, [](const Leaving& one) { return one.hand->child(); });
}

std::unique_ptr<Job> Roster::unfinished(std::uint32_t child) {
        const auto found = find(child);
        const bool waits = found != leaving_.end() && found->job && (found->job->done || found->job->taken);
        return waits ? std::move(found->job) : nullptr;
}

bool Roster::is_at(std::uint64_t connection) const {
        return connection != 0 && std::ranges::any_of(leaving_, [&](const Leaving& one) {
                       return one.job && one.job->connection_id == connection;
               });
}

bool Roster::is_leaving(std::uint32_t child) const {
        return std::ranges::any_of(leaving_, [&](const Leaving& one) { return one.hand->child() == child; });
}

bool Roster::exited(std::uint32_t child) {
        const auto found = find(child);
        if (found == leaving_.end()) {
                return false;
        }
        ledger_.remove(child);
        free_slots(*found->hand);
        leaving_.erase(found);
        processes_--;
        return true;
}

std::uint32_t Roster::offender(const Charge& charge) noexcept {
        std::uint32_t found = kAnyOffender;
        (void)succeeds([&] { found = number(charge); });
        return found;
}

std::uint32_t Roster::number(const Charge& charge) {
        if (const auto found = offenders_.find(charge); found != offenders_.end()) {
                return found->second;
        }
        if (offenders_.size() >= kMaxOffenders && ledger_.size() == 0) {
                offenders_.clear();  // numbers are never used again
                charges_.clear();
        } else if (offenders_.size() >= kMaxOffenders) {
                return kAnyOffender;
        }
        charges_.insert_or_assign(last_offender_ + 1, charge);
        return offenders_.emplace(charge, ++last_offender_).first->second;
}

Charge Roster::charge_of(std::uint32_t offender, uid_t uid) const {
        const auto found = charges_.find(offender);
        return found == charges_.end() ? Charge{.uid = uid} : found->second;
}

}  // namespace sockbroker::hands
