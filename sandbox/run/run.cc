// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See run.h.
#include "sandbox/run/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "broker/base/execute.h"
#include "broker/base/printable.h"
#include "broker/base/standard_streams.h"
#include "broker/socket/facts.h"
#include "sandbox/compile.h"
#include "sandbox/load.h"
#include "sandbox/run/confine.h"
#include "sandbox/run/handover.h"
#include "sandbox/run/program.h"
#include "sandbox/run/sockets.h"
#include "sandbox/run/supervised.h"

namespace sockbroker::launcher {

namespace {

std::unexpected<Failure> failed(const Error& error) {
        return std::unexpected(Failure{kExitFailed, error.text()});
}

// Whether one of the sockets is what this asks for; port 0 is any.
bool is_there(const Listen& listen, const std::string& name, const std::vector<NamedFd>& sockets) {
        return std::ranges::any_of(sockets, [&](const NamedFd& socket) {
                const auto facts = probe_socket(socket.fd.get());
                return socket.name == name && facts && facts->protocol == listen.protocol &&
                       facts->bound.address == listen.at.address &&
                       (listen.at.port == 0 || facts->bound.port == listen.at.port);
        });
}

// What was passed is all that there is to be. Otherwise what is held, and what has to be made beside it.
std::expected<std::vector<NamedFd>, Failure> sockets_of(const Options& options) {
        auto passed = take_passed();
        if (!passed) {
                return failed(passed.error());
        }
        std::vector<NamedFd> sockets = std::move(*passed);
        const bool makes = sockets.empty();
        if (options.retrieves) {
                auto held = retrieve(options);
                if (!held) {
                        return held;
                }
                std::ranges::move(*held, std::back_inserter(sockets));
        }
        for (const Listen& listen : options.listens) {
                const auto& name =
                        !listen.service.empty() || options.services.empty() ? listen.service : options.services.front();
                if (!makes || is_there(listen, name, sockets)) {
                        continue;
                }
                auto made = make_socket(listen, name);
                if (!made && listen.protocol == Protocol::kUdp && options.registers && prepare(options, name)) {
                        made = make_socket(listen, name);
                }
                if (!made) {
                        return failed(made.error());
                }
                sockets.push_back(std::move(*made));
        }
        return sockets;
}

int tell(const Failure& failure) {
        complain(failure.message);
        return failure.status;
}

}  // namespace

int execute(const std::vector<std::string>& command) {
        const int errnum = replace_process(command);
        std::string why;
        if (const auto file = find_program(command[0]); errnum == EPERM && has_capabilities(file)) {
                why = fmt::format(" (the file has capabilities, which nothing gets here: setcap -r {})",
                                  printable(file));
        } else if (errnum == ENOSYS || errnum == EPERM) {
                why = " (does the profile allow execve?)";
        }
        complain(fmt::format("cannot run {}: {}{}", printable(command[0]), std::strerror(errnum), why));
        return errnum == ENOENT ? kExitNotFound : kExitNotRun;
}

void complain(std::string_view message) {
        print_to_stderr(fmt::format("sockbroker-run: {}\n", message));
}

int run(const Options& options) {
        sandbox::ParsedProfile parsed = sandbox::load_profile(options.profile, sandbox::profile_folders());
        if (options.supervise && parsed.profile) {
                if (const auto more = supervised_additions(*parsed.profile); !more.empty()) {
                        parsed = sandbox::load_profile(options.profile, sandbox::profile_folders(),
                                                       {{"--supervise", more}});
                }
        }
        for (const sandbox::Diagnostic& error : parsed.errors) {
                complain(printable(error.to_string()));
        }
        if (!parsed.profile) {
                return kExitProfile;
        }
        if (options.dump) {
                fmt::print("{}", sandbox::dump(*parsed.profile));
                return std::fflush(stdout) == 0 ? 0 : kExitFailed;
        }
        const auto denial = options.log_only ? sandbox::Denial::kLogOnly : sandbox::Denial::kEnforce;
        const auto filter = sandbox::compile(*parsed.profile, denial);
        if (!filter) {
                return tell({kExitProfile, filter.error().text()});
        }
        if (::geteuid() == 0 || ::getuid() == 0) {
                return tell({kExitUsage,
                             "does not run a program as root, whose files are the machine's even without a "
                             "capability: set DynamicUser=yes or User= in the unit"});
        }
        if (options.supervise) {
                return run_supervised(options, *filter);
        }
        auto sockets = sockets_of(options);
        if (!sockets) {
                return tell(sockets.error());
        }
        if (options.registers) {
                if (auto handed = hand_over(options, *sockets); !handed) {
                        return tell(handed.error());
                }
        }
        auto done = pass_on(*sockets);
        if (done) {
                done = give_up_privileges();
        }
        if (done) {
                done = shut_in(TcpBind::kAsEver);
        }
        if (done) {
                done = filter->install_in_this_thread();
        }
        if (!done) {
                return tell({kExitFailed, done.error().text()});
        }
        return execute(options.command);
}

}  // namespace sockbroker::launcher
