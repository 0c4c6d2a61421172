// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/ledger.h"

#include <algorithm>

namespace sockbroker::hands {

void Ledger::remove(std::uint32_t hand) {
        std::erase_if(all_, [&](const LeftBehind& one) { return one.hand == hand; });
}

std::size_t Ledger::of_uid(uid_t uid) const {
        return static_cast<std::size_t>(
                std::ranges::count_if(all_, [&](const LeftBehind& one) { return one.charge.uid == uid; }));
}

std::size_t Ledger::of_unit(const std::string& unit) const {
        return static_cast<std::size_t>(
                std::ranges::count_if(all_, [&](const LeftBehind& one) { return one.charge.unit == unit; }));
}

bool Ledger::bars_uid(uid_t uid) const {
        return of_uid(uid) >= kMaxPerUid;
}

bool Ledger::bars(const Charge& charge) const {
        if (bars_uid(charge.uid)) {
                return true;
        }
        if (charge.admitted) {
                return all_.size() >= kMaxInAll && of_uid(charge.uid) > 0;
        }
        return all_.size() >= kMaxInAll || (!charge.unit.empty() && of_unit(charge.unit) >= kMaxPerUnit);
}

}  // namespace sockbroker::hands
