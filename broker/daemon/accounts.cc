// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/accounts.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
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

}  // namespace

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
