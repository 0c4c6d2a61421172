// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/accounts.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <chrono>
#include <vector>

namespace sockbroker {

namespace {

constexpr std::size_t kMaxEntryBytes = 1 << 20;

// Calls a get*nam_r function with a growing buffer; whether it found the name.
template <class Entry, class Look>
bool look_up(const std::string& name, Entry& entry, std::vector<char>& buffer, Look look) {
        for (buffer.resize(4096); buffer.size() <= kMaxEntryBytes; buffer.resize(buffer.size() * 4)) {
                Entry* found = nullptr;
                const int error = look(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
                if (error != ERANGE) {
                        return error == 0 && found != nullptr;
                }
        }
        return false;
}

std::optional<std::uint32_t> numeric(const std::string& value) {
        const auto number = parse_number(value, 0xfffffffe);
        return number ? std::optional(static_cast<std::uint32_t>(*number)) : std::nullopt;
}

// Every name that is asked for stands in a policy, so there are not more of them than the policy has.
template <class Memory, class Look>
auto remembered(Memory& memory, const std::string& name, const Look& look) {
        constexpr auto kKept = std::chrono::seconds(1);
        if (const auto now = std::chrono::steady_clock::now(); now - memory.since > kKept) {
                memory.ids.clear();
                memory.since = now;
        }
        const auto known = memory.ids.find(name);
        return known != memory.ids.end() ? known->second : memory.ids.emplace(name, look(name)).first->second;
}

// The name that NSS has for an id; empty: none.
template <class Id, class Entry>
std::string name_of(Id id, char* Entry::*name, int (*look)(Id, Entry*, char*, std::size_t, Entry**)) {
        Entry entry{};
        Entry* found = nullptr;
        std::vector<char> buffer(4096);
        while (look(id, &entry, buffer.data(), buffer.size(), &found) == ERANGE && buffer.size() < kMaxEntryBytes) {
                buffer.resize(buffer.size() * 4);
        }
        return found == nullptr ? std::string{} : std::string(entry.*name);
}

}  // namespace

Accounts RememberedAccounts::recall(uid_t uid, gid_t gid) {
        users_.ids.erase(name_of(uid, &passwd::pw_name, getpwuid_r));
        groups_.ids.erase(name_of(gid, &group::gr_name, getgrgid_r));
        return Accounts{
                .user = [this](const std::string& name) { return remembered(users_, name, accounts_.user); },
                .group = [this](const std::string& name) { return remembered(groups_, name, accounts_.group); },
        };
}

Accounts system_accounts() {
        return Accounts{
                .user = [](const std::string& value) -> std::optional<uid_t> {
                        if (const auto number = numeric(value)) {
                                return number;
                        }
                        passwd entry{};
                        std::vector<char> buffer;
                        if (!look_up(value, entry, buffer, getpwnam_r)) {
                                return std::nullopt;
                        }
                        return entry.pw_uid;
                },
                .group = [](const std::string& value) -> std::optional<gid_t> {
                        if (const auto number = numeric(value)) {
                                return number;
                        }
                        group entry{};
                        std::vector<char> buffer;
                        if (!look_up(value, entry, buffer, getgrnam_r)) {
                                return std::nullopt;
                        }
                        return entry.gr_gid;
                },
        };
}

}  // namespace sockbroker
