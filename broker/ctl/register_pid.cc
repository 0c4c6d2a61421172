// SPDX-License-Identifier: LGPL-2.1-or-later
//
// register --pid=PID SERVICE: the sockets of a program that runs and knows nothing of the broker, taken by whoever may
// look into it (root), and registered as that program's.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "broker/base/printable.h"
#include "broker/client/register.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"
#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"
#include "broker/socket/facts.h"

namespace sockbroker::ctl {

namespace {

struct Found {
        OwnedFd fd;
        SocketFacts facts;
};

std::string name_of(const SocketFacts& facts) {
        return fmt::format("{}:{}", to_string(facts.protocol), facts.bound.to_string());
}

// Listening, or bound and not connected, each socket once.
bool is_candidate(const SocketFacts& facts, const std::vector<Found>& found) {
        return (facts.domain == AF_INET || facts.domain == AF_INET6) && facts.bound.port != 0 &&
               (facts.listening || (facts.type == SOCK_DGRAM && !facts.connected)) &&
               std::ranges::none_of(found, [&](const Found& one) { return one.facts.cookie == facts.cookie; });
}

Result<std::vector<Found>> sockets_of(pid_t pid) {
        const OwnedFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
        if (!process) {
                return fail_errno(fmt::format("cannot open process {}", pid));
        }
        const std::string path = fmt::format("/proc/{}/fd", pid);
        const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), ::closedir);
        if (!folder) {
                return fail_errno(fmt::format("cannot read {}; root may, as ExecStartPost=+ is", path));
        }
        const int fds = ::dirfd(folder.get());
        if (fds < 0) {
                return fail_errno(fmt::format("cannot read {}", path));
        }
        std::vector<Found> found;
        while (const dirent* const entry = ::readdir(folder.get())) {
                const auto number = parse_number(entry->d_name, INT32_MAX);
                struct stat status {};
                if (!number || ::fstatat(fds, entry->d_name, &status, 0) != 0 || !S_ISSOCK(status.st_mode)) {
                        continue;
                }
                OwnedFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), static_cast<int>(*number), 0)));
                if (!fd && errno != EBADF) {
                        return fail_errno(
                                fmt::format("cannot take a descriptor of process {}; root may, as "
                                            "ExecStartPost=+ is",
                                            pid));
                }
                const auto facts = fd ? probe_socket(fd.get()) : fail("closed meanwhile");
                if (facts && is_candidate(*facts, found)) {
                        found.push_back({std::move(fd), *facts});
                }
        }
        return found;
}

// Policy's word: the service takes a socket bound there.
bool is_taken(ControlClient& client, const std::string& service, pid_t pid, const SocketFacts& facts) {
        sockbroker::Request request{.verb = sockbroker::Verb::kMatch, .pid = pid};
        request.bind = {.protocol = facts.protocol,
                        .at = {.address = unmapped(facts.bound.address), .port = facts.bound.port},
                        .services = {service}};
        const auto ask = [&] {
                const auto answer = client.call(format_request(request), {}, [](std::string_view) {});
                return answer && (answer->result == "ok" || answer->result == "busy");
        };
        const auto& bytes = facts.bound.address.bytes;
        const bool any = std::ranges::all_of(bytes, [](auto byte) { return byte == 0; });
        if (ask()) {
                return true;
        }
        if (facts.family == SocketFamily::kDual && any) {
                request.bind.at.address = Address{.family = Family::kIpv4};
                return ask();
        }
        return false;
}

// Of the sockets of a process those that are meant: by their names or, where none is given, by policy.
class Meant {
public:
        Meant(ControlClient& client, const Options& options, std::vector<std::string> names)
                : client_(client), options_(options), names_(std::move(names)) {}

        [[nodiscard]] bool has(const Found& one) {
                if (!names_.empty()) {
                        return std::ranges::find(names_, name_of(one.facts)) != names_.end();
                }
                const auto [said, fresh] = said_.try_emplace(one.facts.cookie, false);
                if (fresh) {
                        said->second = is_taken(client_, options_.arguments.front(), options_.pid, one.facts);
                }
                return said->second;
        }
        // The first name that none of them has.
        [[nodiscard]] const std::string* missing(const std::vector<Found>& found) const {
                const auto name = std::ranges::find_if(names_, [&](const std::string& wanted) {
                        return std::ranges::none_of(found,
                                                    [&](const Found& one) { return name_of(one.facts) == wanted; });
                });
                return name == names_.end() ? nullptr : &*name;
        }
        [[nodiscard]] bool are_in(const std::vector<Found>& found) {
                return missing(found) == nullptr &&
                       std::ranges::any_of(found, [this](const Found& one) { return has(one); });
        }

private:
        ControlClient& client_;
        const Options& options_;
        const std::vector<std::string> names_;
        std::map<std::uint64_t, bool> said_;  // by cookie: each is asked about once
};

// A unit's ExecStartPost= runs as soon as the program does, which listens a little later.
Result<std::vector<Found>> wait_for_sockets(const Options& options, Meant& meant) {
        constexpr auto kPause = std::chrono::milliseconds(20);
        const auto patience = options.timeout == kForever ? kShortTimeout : options.timeout;
        const auto end = std::chrono::steady_clock::now() + patience;
        for (;;) {
                auto found = sockets_of(options.pid);
                if (!found || meant.are_in(*found) || std::chrono::steady_clock::now() >= end) {
                        return found;
                }
                std::this_thread::sleep_for(kPause);
        }
}

std::string names_of(const std::vector<Found>& found) {
        std::vector<std::string> names;
        names.reserve(found.size());
        for (const Found& one : found) {
                names.push_back(name_of(one.facts));
        }
        return names.empty() ? "none" : fmt::format("{}", fmt::join(names, " "));
}

}  // namespace

int register_of_process(const Options& options) {
        if (options.arguments.empty() || !valid_service_name(options.arguments.front())) {
                complain("with --pid= write: sockbrokerctl register --pid=PID SERVICE [PROTO:ADDRESS:PORT...]");
                return kExitUsage;
        }
        const std::string& service = options.arguments.front();
        std::expected<ControlClient, int> client = connect(options);
        if (!client) {
                return client.error();
        }
        Meant meant(*client, options, {options.arguments.begin() + 1, options.arguments.end()});
        const auto found = wait_for_sockets(options, meant);
        if (!found) {
                complain(found.error().text());
                return kExitFailed;
        }
        if (found->empty()) {
                complain(fmt::format(
                        "process {} has no socket that listens, or UDP socket that is bound; --timeout= waits longer",
                        options.pid));
                return kExitFailed;
        }
        if (const auto* const name = meant.missing(*found)) {
                complain(fmt::format("process {} has no socket {}; it has: {}", options.pid, printable(*name),
                                     names_of(*found)));
                return kExitFailed;
        }
        std::vector<int> fds;
        for (const Found& one : *found) {
                if (meant.has(one)) {
                        fds.push_back(one.fd.get());
                }
        }
        if (fds.empty()) {
                complain(fmt::format(
                        "no binding of {} covers a socket of process {}, or it does not admit it; it has: {}. "
                        "Name the ones that are meant: sockbrokerctl register --pid={} {} "
                        "PROTO:ADDRESS:PORT",
                        service, options.pid, names_of(*found), options.pid, service));
                return kExitFailed;
        }
        const auto answer = sockbroker::register_sockets(*client, service, fds, {.pid = options.pid});
        if (!answer) {
                return report_no_answer(answer.error());
        }
        return show_answer(
                options, service, *answer,
                fmt::format("{}: {} of process {} registered", service, count(fds.size(), "socket"), options.pid));
}

}  // namespace sockbroker::ctl
