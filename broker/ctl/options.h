// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The command line of sockbrokerctl as values. Touches nothing but its arguments and getopt's own state; what
// verbs exist and how many arguments they take is known in verbs.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "broker/base/directories.h"
#include "broker/base/result.h"
#include "broker/base/time_span.h"

namespace sockbroker::ctl {

// Documented in sockbrokerctl(1); scripts depend on them.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;          // the broker refused, or a policy has errors; status: it is degraded
inline constexpr int kExitUsage = 2;           // unknown verb, option or argument
inline constexpr int kExitUnreachable = 3;     // no broker answers; status SERVICE: nothing serves
inline constexpr int kExitTimedOut = 4;        // what was waited for did not come in time
inline constexpr int kExitUnknownService = 4;  // status SERVICE: there is none of that name

// How long a verb waits for a broker that does not answer, where nothing else is said.
inline constexpr std::chrono::microseconds kShortTimeout = std::chrono::seconds(5);

enum class JsonMode : std::uint8_t { kOff, kShort, kPretty };

// The directories are those of --netns, --config-dir and the like, or the default ones.
struct Options : Directories {
        std::string verb = "status";
        std::vector<std::string> arguments;
        JsonMode json = JsonMode::kOff;
        bool json_help = false;
        bool legend = true;
        bool quiet = false;  // what was done is not said
        bool full = false;   // tables are not cut to the terminal
        bool pager = true;
        bool help = false;
        bool version = false;
        std::string wait_for;  // "live" or "drained", empty: not given
        std::chrono::microseconds timeout = kForever;
        bool timeout_given = false;
        std::chrono::microseconds confirm{0};  // reload: back again unless it is kept; 0: not given
        bool keep = false;
        bool local_routes = false;  // unload: these too
        bool offline = false;
        bool strict = false;
        std::string root;        // under which the directories of policies are looked for; empty: /
        std::string from;        // of a client, ADDRESS:PORT; empty: not given
        std::string interface;   // where its packet comes in
        std::int32_t pid = 0;    // whose sockets; 0: not given
        std::string netns;       // empty: the machine's own broker
        std::string config_dir;  // empty: the four usual ones
};

// Options may stand before, between and after verb and arguments, up to "--".
[[nodiscard]] Result<Options> parse_options(int argc, char* const* argv);

// What --json= says on a command line that parse_options() refuses.
[[nodiscard]] JsonMode json_wanted(int argc, char* const* argv);

[[nodiscard]] std::string help_text();

}  // namespace sockbroker::ctl
