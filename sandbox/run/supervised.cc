// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/run/supervised.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "broker/base/printable.h"
#include "broker/client/client.h"
#include "sandbox/run/confine.h"
#include "sandbox/run/handover.h"
#include "sandbox/run/program.h"
#include "sandbox/run/run.h"
#include "sandbox/supervise/notification.h"
#include "sandbox/supervise/probe.h"
#include "sandbox/supervise/session.h"
#include "sandbox/supervise/trap.h"
#include "sandbox/supervise/user_namespace.h"

namespace sockbroker::launcher {

namespace {

using supervise::Session;

int not_run(const Error& error) {
        complain(error.text());
        return kExitFailed;
}

// The IP sockets that are of a service go to the supervisor, all others on to the program.
std::vector<supervise::Passed> take_spares(const Options& options, std::vector<NamedFd>& sockets) {
        std::vector<NamedFd> rest;
        std::vector<NamedFd> ip;
        std::vector<std::string> names;
        for (NamedFd& socket : sockets) {
                if (options.registers && is_ip_socket(socket.fd.get())) {
                        names.push_back(socket.name);
                        ip.push_back(std::move(socket));
                } else {
                        rest.push_back(std::move(socket));
                }
        }
        std::vector<supervise::Passed> spares;
        for (const auto& [service, indices] : hand_out(names, options)) {
                for (const std::size_t i : indices) {
                        spares.push_back({service, std::move(ip[i].fd)});
                }
        }
        for (NamedFd& socket : ip) {
                if (socket.fd) {
                        if (const auto why = why_left_out(socket.name, options); !why.empty()) {
                                complain(why);
                        }
                        rest.push_back(std::move(socket));
                }
        }
        sockets = std::move(rest);
        return spares;
}

// What keeps the supervisor from looking into this process, and the line that changes it.
Error no_access(const Error& error, bool in_namespace) {
        const int scope = supervise::ptrace_scope();
        if (scope >= 3) {
                return {error.errnum,
                        "the supervisor may not look into the program: kernel.yama.ptrace_scope is 3, "
                        "which lets nobody; set it to 2 or less in sysctl.d"};
        }
        return {error.errnum,
                fmt::format("the supervisor may not look into the program ({}): kernel.yama.ptrace_scope is {}{}",
                            error.message, scope,
                            in_namespace ? "" : "; --user-namespace=auto runs it in a user namespace, where it may")};
}

Result<void> enter_namespace() {
        auto done = supervise::enter_user_namespace();
        if (!done) {
                return fail(
                        done.error().errnum,
                        fmt::format("{}: the unit must allow it (RestrictNamespaces=user, or no RestrictNamespaces=), "
                                    "and the machine (user.max_user_namespaces, kernel.unprivileged_userns_clone); "
                                    "or set kernel.yama.ptrace_scope=0 in sysctl.d",
                                    done.error().message));
        }
        return give_up_privileges();  // of which it has all, in there
}

Error unreadable(const std::string& program) {
        return {EACCES, fmt::format("the supervisor may not look into a program whose file its user cannot read: chmod "
                                    "a+r {}",
                                    printable(program))};
}

// Whether uids alone give the right to look, else by a user namespace.
Result<void> make_accessible(const Session& session, UserNamespace wanted, const std::string& program) {
        const Looking looking = looking_into(program);
        if (looking == Looking::kNobody || (looking == Looking::kInNamespace && wanted == UserNamespace::kNo)) {
                return std::unexpected(unreadable(program));
        }
        if (wanted != UserNamespace::kYes && looking != Looking::kInNamespace) {
                const auto access = session.check_access();
                if (access || access.error().errnum != EPERM) {
                        return access;
                }
                if (wanted == UserNamespace::kNo) {
                        return std::unexpected(no_access(access.error(), false));
                }
        }
        if (auto entered = enter_namespace(); !entered) {
                return entered;
        }
        const auto access = session.check_access();
        return access || access.error().errnum != EPERM ? access : std::unexpected(no_access(access.error(), true));
}

// The supervisor is in another folder than this process.
std::string from_everywhere(const std::string& path) {
        std::error_code error;
        const auto whole = std::filesystem::absolute(path, error);
        return error ? path : whole.string();
}

Result<void> trap(Session& session, bool names) {
        auto listener = supervise::install_with_listener(supervise::trap_program(names));
        if (!listener) {
                const int errnum = listener.error().errnum;
                if (errnum == EBUSY) {
                        return fail(
                                "another supervisor of system calls has this process already (a container manager, "
                                "or sockbroker-run --supervise twice): only one can be; take one out");
                }
                return fail(errnum, fmt::format("{}; the profile must allow seccomp, and the unit's SystemCallFilter= "
                                                "too: add the line SystemCallFilter=seccomp pidfd_getfd",
                                                listener.error().message));
        }
        return session.hand_over(std::move(*listener));
}

}  // namespace

std::string supervised_additions(const sandbox::Profile& profile) {
        struct Addition {
                const char* call;
                sandbox::Arguments arguments;  // of a call that must be allowed
                const char* line;
        };
        // What bind(2) is asked for is the supervisor's to judge.
        static constexpr Addition kAdditions[] = {
                {"socket",
                 {AF_INET, SOCK_STREAM, 0},
                 "allow socket arg0 in {AF_INET, AF_INET6} and arg1 & SOCK_TYPE_MASK in {SOCK_STREAM, SOCK_DGRAM} and "
                 "arg2 in {0, IPPROTO_TCP, IPPROTO_UDP}\n"},
                {"bind", {}, "allow bind\n"},
                {"listen", {}, "allow listen\n"},
                {"seccomp",
                 {1, 1U << 3},  // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
                 "allow seccomp arg0 in {SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL}\n"},
        };
        std::string text;
        for (const auto& addition : kAdditions) {
                const auto action = profile.decide(addition.call, addition.arguments).kind;
                if (action != sandbox::ActionKind::kAllow && action != sandbox::ActionKind::kLog) {
                        text += addition.line;
                }
        }
        return text;
}

int run_supervised(const Options& options, const sandbox::Filter& filter) {
        auto sockets = take_passed();
        if (!sockets) {
                return not_run(sockets.error());
        }
        if (options.registers) {
                if (const auto client = ControlClient::connect(options.runtime_dir); !client) {
                        const bool no_unix = client.error().errnum == EAFNOSUPPORT || client.error().errnum == EPERM;
                        complain(fmt::format("{}: {}", client.error().text(),
                                             no_unix ? "the unit must allow it: add the line "
                                                       "RestrictAddressFamilies=AF_UNIX to what it has"
                                                     : "start sockbrokerd.socket, or, for a configuration test, give "
                                                       "--no-register"));
                        return kExitUnreachable;
                }
        }
        const auto probed = supervise::probe_calls();
        if (!probed) {
                return not_run(probed.error());
        }
        auto spares = take_spares(options, *sockets);
        auto session = Session::begin({.runtime_dir = from_everywhere(options.runtime_dir),
                                       .services = options.services,
                                       .limits = options.limits,
                                       .registers = options.registers,
                                       .names = options.names},
                                      std::move(spares));
        if (!session) {
                return not_run(session.error());
        }
        auto done = give_up_privileges();
        if (done) {
                done = make_accessible(*session, options.user_namespace, find_program(options.command[0]));
        }
        if (done) {
                done = session->move_above(3 + static_cast<int>(sockets->size()));
        }
        if (done) {
                done = pass_on(*sockets, session->fd());
        }
        if (done) {
                done = shut_in(TcpBind::kRefused);
        }
        if (done) {
                done = filter.install_in_this_thread();
        }
        if (done) {
                done = trap(*session, options.names);
        }
        return done ? execute(options.command) : not_run(done.error());
}

}  // namespace sockbroker::launcher
