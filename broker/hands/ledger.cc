// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/ledger.h"

#include <algorithm>

#include <fmt/format.h>

namespace sockbroker::hands {

std::string name_of(const Charge& charge) {
        return charge.unit.empty() ? fmt::format("uid {}", charge.uid) : charge.unit;
}

void Ledger::add(std::uint32_t hand, Charge charge) {
        std::erase(known_, charge.uid);
        all_.push_back({hand, std::move(charge)});
}

void Ledger::remove(std::uint32_t hand) {
        std::erase_if(all_, [&](const LeftBehind& one) { return one.hand == hand; });
}

void Ledger::note_served(uid_t uid) {
        if (!known_.empty() && known_.back() == uid) {
                return;
        }
        if (std::erase(known_, uid) == 0 && known_.size() >= kMaxKnown) {
                if (!all_.empty()) {
                        return;
                }
                known_.erase(known_.begin());
        }
        known_.push_back(uid);
}

bool Ledger::knows(uid_t uid) const {
        return std::ranges::find(known_, uid) != known_.end();
}

template <class Fits>
std::size_t Ledger::count(const Fits& fits) const {
        return static_cast<std::size_t>(
                std::ranges::count_if(all_, [&](const LeftBehind& one) { return fits(one.charge); }));
}

std::size_t Ledger::of_unit(const Charge& charge) const {
        return count([&](const Charge& one) { return one.unit == charge.unit && one.admitted == charge.admitted; });
}

bool Ledger::bars_uid(uid_t uid) const {
        return count([&](const Charge& one) { return one.uid == uid; }) >= kMaxPerUid;
}

bool Ledger::bars_strangers() const {
        return count([](const Charge& one) { return !one.admitted; }) >= kMaxOfStrangers;
}

bool Ledger::bars(const Charge& charge) const {
        if (all_.empty()) {
                return false;
        }
        if (bars_uid(charge.uid) || is_full()) {
                return true;
        }
        if (knows(charge.uid)) {
                return false;
        }
        if (all_.size() >= kMaxInAll) {
                return true;
        }
        // Who has no unit, or has left before it was read, is alone with his uid.
        if (charge.admitted) {
                return !charge.unit.empty() && of_unit(charge) >= kMaxPerAdmittedUnit;
        }
        return bars_strangers() || (!charge.unit.empty() && of_unit(charge) >= kMaxPerUnit);
}

std::string Ledger::why_barred(const Charge& charge) const {
        if (bars_uid(charge.uid)) {
                return fmt::format("uid {}", charge.uid);
        }
        const std::size_t most = charge.admitted ? kMaxPerAdmittedUnit : kMaxPerUnit;
        return !charge.unit.empty() && of_unit(charge) >= most ? charge.unit : std::string();
}

}  // namespace sockbroker::hands
