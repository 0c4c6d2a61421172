// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/table.h"

namespace sockbroker::supervise {

Known* Table::find(std::uint64_t cookie) {
        const auto found = index_.find(cookie);
        if (found == index_.end()) {
                return nullptr;
        }
        entries_.splice(entries_.begin(), entries_, found->second);
        return &found->second->second;
}

Known& Table::put(std::uint64_t cookie, Known known) {
        if (Known* there = find(cookie)) {
                *there = std::move(known);
                return *there;
        }
        if (index_.size() >= capacity_) {
                index_.erase(entries_.back().first);
                entries_.pop_back();
        }
        entries_.emplace_front(cookie, std::move(known));
        index_[cookie] = entries_.begin();
        return entries_.front().second;
}

}  // namespace sockbroker::supervise
