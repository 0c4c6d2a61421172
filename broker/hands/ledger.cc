// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/ledger.h"

namespace sockbroker::hands {

namespace {

template <class Map, class Key>
std::size_t count_of(const Map& map, const Key& key) {
        const auto found = map.find(key);
        return found == map.end() ? 0 : found->second;
}

template <class Map, class Key>
void take_one(Map& map, const Key& key) {
        if (const auto found = map.find(key); found != map.end() && --found->second == 0) {
                map.erase(found);
        }
}

}  // namespace

void Ledger::add(const Charge& charge) {
        per_uid_[charge.uid]++;
        if (!charge.unit.empty()) {
                per_unit_[charge.unit]++;
        }
        size_++;
}

void Ledger::remove(const Charge& charge) {
        take_one(per_uid_, charge.uid);
        if (!charge.unit.empty()) {
                take_one(per_unit_, charge.unit);
        }
        size_--;
}

bool Ledger::bars_uid(uid_t uid) const {
        return count_of(per_uid_, uid) >= kMaxPerUid;
}

bool Ledger::bars(const Charge& charge) const {
        if (bars_uid(charge.uid)) {
                return true;
        }
        if (charge.admitted) {
                return size_ >= kMaxInAll && count_of(per_uid_, charge.uid) > 0;
        }
        return size_ >= kMaxInAll || (!charge.unit.empty() && count_of(per_unit_, charge.unit) >= kMaxPerUnit);
}

}  // namespace sockbroker::hands
