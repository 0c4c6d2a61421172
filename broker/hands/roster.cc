// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/roster.h"

#include <algorithm>
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

std::unique_ptr<Hand> Roster::fork(Role role, bool for_the_door) {
        auto slot = slots_.end();
        if (offers(role)) {
                slot = std::find(slots_.begin(), slots_.end(), false);
                if (slot == slots_.end()) {
                        return nullptr;
                }
        }
        std::vector<int> given;
        switch (role) {
        case Role::kIntake:
                given = {options_.staging, options_.notify};
                break;
        case Role::kDisposal:
                given = {options_.notify};
                break;
        case Role::kHolder:
                given = {options_.staging, options_.manager};
                break;
        case Role::kDoor:
                return nullptr;
        }
        auto hand = Hand::fork(event_, zygote_, next_child(), role, given, for_the_door, hooks_);
        if (!hand) {
                return nullptr;
        }
        if (slot != slots_.end()) {
                (*hand)->staging = static_cast<std::uint32_t>(slot - slots_.begin()) * Crew::kStagingOfOne;
                *slot = true;
        }
        return std::move(*hand);
}

void Roster::free_slots(const Hand& hand) {
        if (offers(hand.role())) {
                slots_[hand.staging / Crew::kStagingOfOne] = false;
        }
}

void Roster::leave_behind(std::unique_ptr<Hand> hand, const std::optional<Charge>& charge,
                          std::unique_ptr<Job> unfinished) {
        zygote_.kill(hand->child());
        hand->dismiss();
        if (charge) {
                ledger_.add(*charge);
        }
        const auto child = hand->child();
        leaving_.emplace(child, Leaving{std::move(hand), charge, std::move(unfinished)});
}

void Roster::dismiss(std::unique_ptr<Hand> hand) {
        hand->dismiss();
        const auto child = hand->child();
        leaving_.emplace(child, Leaving{std::move(hand), std::nullopt, nullptr});
}

std::unique_ptr<Job> Roster::unfinished(std::uint32_t child) {
        const auto found = leaving_.find(child);
        return found == leaving_.end() ? nullptr : std::move(found->second.unfinished);
}

bool Roster::exited(std::uint32_t child) {
        const auto found = leaving_.find(child);
        if (found == leaving_.end()) {
                return false;
        }
        if (const auto& charge = found->second.charge) {
                ledger_.remove(*charge);
        }
        free_slots(*found->second.hand);
        leaving_.erase(found);
        return true;
}

std::uint32_t Roster::offender(const Charge& charge) {
        if (charge.unit.empty()) {
                return 0;
        }
        if (const auto found = offenders_.find(charge); found != offenders_.end()) {
                return found->second;
        }
        if (offenders_.size() >= kMaxOffenders && ledger_.size() == 0) {
                offenders_.clear();  // numbers are never used again
                charges_.clear();
        } else if (offenders_.size() >= kMaxOffenders) {
                return 0;
        }
        offenders_.emplace(charge, ++last_offender_);
        charges_.emplace(last_offender_, charge);
        return last_offender_;
}

Charge Roster::charge_of(std::uint32_t offender, uid_t uid) const {
        const auto found = charges_.find(offender);
        return found == charges_.end() ? Charge{.uid = uid} : found->second;
}

}  // namespace sockbroker::hands
