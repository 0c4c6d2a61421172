// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/names/nss.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <vector>

#include "broker/base/net.h"

namespace sockbroker {

namespace {

constexpr std::size_t kMaxEntryBytes = 1 << 20;

// Calls a function of the get*_r family with a growing buffer.
template <class Entry, class Key>
Outcome look_up(Key key, Entry& entry, std::vector<char>& buffer,
                int (*look)(Key, Entry*, char*, std::size_t, Entry**)) {
        for (buffer.resize(4096); buffer.size() <= kMaxEntryBytes; buffer.resize(buffer.size() * 4)) {
                Entry* found = nullptr;
                const int error = look(key, &entry, buffer.data(), buffer.size(), &found);
                if (error != ERANGE) {
                        // glibc returns 0 where the last source that was asked said "not found", and errno, whatever it
                        // is, where that one could not be asked (nss/getXXbyYY_r.c).
                        return found != nullptr ? Outcome::kFound : error == 0 ? Outcome::kAbsent : Outcome::kNoAnswer;
                }
        }
        return Outcome::kNoAnswer;
}

}  // namespace

NssAnswer ask_nss(const Question& question) {
        std::vector<char> buffer;
        passwd user{};
        group members{};
        const auto id = static_cast<std::uint32_t>(parse_number(question.text, 0xffffffff).value_or(0xffffffff));
        NssAnswer answer;
        switch (question.kind) {
        case QuestionKind::kUser:
                answer.outcome = look_up(question.text.c_str(), user, buffer, getpwnam_r);
                answer.id = user.pw_uid;
                break;
        case QuestionKind::kGroup:
                answer.outcome = look_up(question.text.c_str(), members, buffer, getgrnam_r);
                answer.id = members.gr_gid;
                break;
        case QuestionKind::kNameOfUser:
                answer.outcome = look_up(static_cast<uid_t>(id), user, buffer, getpwuid_r);
                answer.name = answer.outcome == Outcome::kFound ? user.pw_name : "";
                break;
        case QuestionKind::kNameOfGroup:
                answer.outcome = look_up(static_cast<gid_t>(id), members, buffer, getgrgid_r);
                answer.name = answer.outcome == Outcome::kFound ? members.gr_name : "";
                break;
        }
        return answer;
}

}  // namespace sockbroker
