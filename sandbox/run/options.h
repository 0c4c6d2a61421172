// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The command line of sockbroker-run as values. Touches nothing but its arguments and getopt's own state.
#pragma once

#include <string>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"
#include "sandbox/supervise/plan.h"

namespace sockbroker::launcher {

// Documented in sockbroker-run(1): sysexits.h, and what env(1) returns where there is nothing to run.
inline constexpr int kExitUsage = 64;        // EX_USAGE
inline constexpr int kExitUnreachable = 69;  // EX_UNAVAILABLE: no broker answers
inline constexpr int kExitFailed = 71;       // EX_OSERR: a socket or the sandbox cannot be made
inline constexpr int kExitRefused = 77;      // EX_NOPERM: the broker refused
inline constexpr int kExitProfile = 78;      // EX_CONFIG: the profile has errors
inline constexpr int kExitNotRun = 126;
inline constexpr int kExitNotFound = 127;

struct Listen {
        Protocol protocol = Protocol::kTcp;
        Endpoint at;          // port 0: one of the kernel's choice; a v4-mapped address: a dual-stack socket
        std::string service;  // of NAME=ADDRESS:PORT; empty: the one of --service=
};

// Whether the program runs in a user namespace, so that the supervisor may look into it.
enum class UserNamespace : std::uint8_t { kAuto, kYes, kNo };

struct Options {
        std::string profile = "default";
        std::vector<std::string> services;  // of --service=; none: each socket's own name
        bool registers = true;
        bool retrieves = false;
        std::vector<Listen> listens;
        std::string runtime_dir = "/run/sockbroker";
        bool supervise = false;
        std::vector<supervise::Limit> limits;  // of --bind=; none: all binds are taken over
        bool names = false;                    // getsockname(2) tells what the program asked
        UserNamespace user_namespace = UserNamespace::kAuto;
        bool log_only = false;
        bool dump = false;
        bool help = false;
        bool version = false;
        std::vector<std::string> command;
};

// The services that the command line names, by --service= and by --listen-*=NAME=, each once.
[[nodiscard]] std::vector<std::string> named_services(const Options& options);

[[nodiscard]] Result<Options> parse_options(int argc, char* const* argv);

[[nodiscard]] std::string help_text();

}  // namespace sockbroker::launcher
