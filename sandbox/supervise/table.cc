// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/table.h"

namespace sockbroker::supervise {

Table::Kind Table::kind_of(const Known& known) {
        return known.services.empty() ? kAsAsked : known.registered_for != 0 ? kRegistered : kWaits;
}

Known* Table::find(std::uint64_t cookie) {
        const auto found = index_.find(cookie);
        if (found == index_.end()) {
                return nullptr;
        }
        Entry& entry = *found->second;
        const Kind kind = kind_of(entry.known);
        entries_[kind].splice(entries_[kind].begin(), entries_[entry.kind], found->second);
        entry.kind = kind;
        return &entry.known;
}

// For one more.
void Table::make_room(Kind kind) {
        const bool as_asked = kind == kAsAsked;
        const auto used = as_asked ? entries_[kAsAsked].size() : entries_[kRegistered].size() + entries_[kWaits].size();
        if (used < capacity_) {
                return;
        }
        Entries& from = entries_[as_asked ? kAsAsked : entries_[kRegistered].empty() ? kWaits : kRegistered];
        index_.erase(from.back().cookie);
        from.pop_back();
}

Known& Table::put(std::uint64_t cookie, Known known) {
        if (const auto there = index_.find(cookie); there != index_.end()) {
                entries_[there->second->kind].erase(there->second);
                index_.erase(there);
        }
        const Kind kind = kind_of(known);
        make_room(kind);
        entries_[kind].push_front({.cookie = cookie, .known = std::move(known), .kind = kind});
        index_[cookie] = entries_[kind].begin();
        return entries_[kind].front().known;
}

}  // namespace sockbroker::supervise
