// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A process of its own reads, since what it gives up cannot be had again; it tells what it found over a pipe.
#include "broker/ctl/as_broker.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <string_view>

#include <fmt/format.h>

#include "broker/base/landlock.h"
#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/policy/files.h"
#include "broker/policy/readable_paths.h"

namespace sockbroker::ctl {

namespace {

bool become(const UserIds& user) {
        const gid_t own = user.groups.front();
        return ::setgroups(user.groups.size(), user.groups.data()) == 0 && ::setresgid(own, own, own) == 0 &&
               ::setresuid(user.uid, user.uid, user.uid) == 0;
}

// Four fields for each, ended by a NUL: names of files are kept to the byte.
std::string read_all_files(const std::vector<std::string>& config_dirs) {
        auto all = load_broker_config(config_dirs).diagnostics;
        const auto found = read_policy_files(config_dirs).diagnostics;
        all.insert(all.end(), found.begin(), found.end());
        std::string fields;
        for (const auto& [file, line, severity, message] : all) {
                fields += fmt::format("{}{end}{}{end}{}{end}{}{end}", file, line, static_cast<int>(severity), message,
                                      fmt::arg("end", '\0'));
        }
        return fields;
}

[[noreturn]] void read_and_tell(const Directories& places, const UserIds* user, int pipe) {
        int status = 1;
        try {
                if (user == nullptr || become(*user)) {
                        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                        // A kernel without Landlock does not keep the broker from anything either.
                        auto paths = readable_paths(places.config_dirs);
                        paths.push_back(places.state_dir);  // which it may write too
                        (void)restrict_files({.read = paths, .write = {}, .pin = {}});
                        const auto lines = read_all_files(places.config_dirs);
                        std::string_view rest = lines;
                        while (!rest.empty()) {
                                const ssize_t done = ::write(pipe, rest.data(), rest.size());
                                if (done < 0 && errno != EINTR) {
                                        ::_exit(1);
                                }
                                rest.remove_prefix(done > 0 ? static_cast<std::size_t>(done) : 0);
                        }
                        status = 0;
                }
        } catch (const std::exception&) {
                status = 1;  // nothing is known
        }
        ::_exit(status);
}

Result<std::string> read_to_end(int fd) {
        std::string text;
        char buffer[65536];
        while (true) {
                const ssize_t got = ::read(fd, buffer, sizeof buffer);
                if (got == 0) {
                        return text;
                }
                if (got < 0 && errno != EINTR) {
                        return fail_errno("cannot hear from the process that reads the policy as the broker would");
                }
                text.append(buffer, got > 0 ? static_cast<std::size_t>(got) : 0);
        }
}

}  // namespace

Result<std::vector<Diagnostic>> read_as_broker(const Directories& places, const UserIds* user) {
        int fds[2];
        if (::pipe2(fds, O_CLOEXEC) != 0) {
                return fail_errno("cannot make a pipe");
        }
        const OwnedFd ours(fds[0]);
        OwnedFd theirs(fds[1]);
        const pid_t child = ::fork();
        if (child < 0) {
                return fail_errno("cannot start a process that reads the policy as the broker would");
        }
        if (child == 0) {
                read_and_tell(places, user, theirs.get());
        }
        theirs.reset();
        const auto lines = read_to_end(ours.get());
        int status = 0;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        if (!lines) {
                return std::unexpected(lines.error());
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                return fail("cannot read the policy as the broker would: its user cannot be taken on");
        }
        std::vector<Diagnostic> all;
        std::string_view rest = *lines;
        const auto field = [&rest] {
                const auto text = rest.substr(0, rest.find('\0'));
                rest.remove_prefix(std::min(text.size() + 1, rest.size()));
                return text;
        };
        while (!rest.empty()) {
                const auto file = field();
                const auto line = parse_number(field(), UINT32_MAX).value_or(0);
                const auto severity = field() == "0" ? Severity::kError : Severity::kWarning;
                all.push_back({std::string(file), static_cast<unsigned>(line), severity, std::string(field())});
        }
        return all;
}

}  // namespace sockbroker::ctl
