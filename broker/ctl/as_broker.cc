// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A process of its own reads, since what it gives up cannot be had again; it tells what it found over a pipe.
#include "broker/ctl/as_broker.h"

#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "broker/base/landlock.h"
#include "broker/base/net.h"
#include "broker/policy/files.h"
#include "broker/policy/readable_paths.h"

namespace sockbroker::ctl {

namespace {

constexpr std::string_view kEnd = "end";

bool become(const UserIds& user) {
        const gid_t own = user.groups.front();
        return ::setgroups(user.groups.size(), user.groups.data()) == 0 && ::setresgid(own, own, own) == 0 &&
               ::setresuid(user.uid, user.uid, user.uid) == 0;
}

// Four fields for each, ended by a NUL: names of files are kept to the byte. The last one of all is the severity kEnd.
std::string read_all_files(const std::vector<std::string>& config_dirs) {
        auto all = load_broker_config(config_dirs).diagnostics;
        const auto found = read_policy_files(config_dirs).diagnostics;
        all.insert(all.end(), found.begin(), found.end());
        std::string fields;
        for (const auto& [file, line, severity, message] : all) {
                fields += fmt::format("{}{end}{}{end}{}{end}{}{end}", static_cast<int>(severity), file, line, message,
                                      fmt::arg("end", '\0'));
        }
        return fields.append(kEnd).append(1, '\0');
}

void read_and_tell(const Directories& places, const UserIds* user, int pipe) {
        if (user != nullptr && !become(*user)) {
                return;
        }
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        // A kernel without Landlock does not keep the broker from anything either.
        auto paths = readable_paths(places.config_dirs);
        paths.push_back(places.state_dir);  // which it may write too
        (void)restrict_files({.read = paths, .write = {}, .pin = {}});
        write_record(pipe, read_all_files(places.config_dirs));
}

}  // namespace

Result<std::vector<Diagnostic>> read_as_broker(const Directories& places, const UserIds* user, Deadline deadline) {
        const auto fields = told_until(deadline, [&](int pipe) { read_and_tell(places, user, pipe); });
        if (!fields) {
                return std::unexpected(fields.error());
        }
        std::vector<Diagnostic> all;
        std::string_view rest = *fields;
        const auto field = [&rest] {
                const auto text = rest.substr(0, rest.find('\0'));
                rest.remove_prefix(std::min(text.size() + 1, rest.size()));
                return text;
        };
        while (!rest.empty()) {
                const auto kind = field();
                if (kind == kEnd) {
                        return all;
                }
                const auto file = field();
                const auto line = parse_number(field(), UINT32_MAX).value_or(0);
                all.push_back({std::string(file), static_cast<unsigned>(line),
                               kind == "0" ? Severity::kError : Severity::kWarning, std::string(field())});
        }
        const auto* const who = user != nullptr ? kBrokerUser : "that calls";
        return Deadline::clock::now() < deadline
                       ? fail(fmt::format("cannot read the policy as the broker would, as the user {}", who))
                       : fail(fmt::format("the policy files have no answer for the user {} within --timeout=, mend the "
                                          "file system that has them or move them to another",
                                          who));
}

}  // namespace sockbroker::ctl
