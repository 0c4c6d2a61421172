// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-routes: makes the routes that policy asks for, sockbroker-routes(8). The one process of the broker's that
// has CAP_NET_ADMIN.
#include <array>
#include <cstdlib>
#include <exception>

#include <fmt/format.h>

#include "broker/base/command_line.h"
#include "broker/base/standard_streams.h"
#include "broker/daemon/places.h"
#include "broker/policy/files.h"
#include "broker/routes/server.h"

namespace {

constexpr const char* kHelp =
        "sockbroker-routes [OPTION...]\n"
        "\n"
        "Keep the routes that LocalRoutes= and Announce= of the policy ask for, as\n"
        "sockbrokerd says.\n"
        "\n"
        "  -h --help             Show this help\n"
        "     --version          Show the version\n"
        "     --dump-seccomp     Show the filter of system calls\n"
        "     --netns NAME       For the broker of this network namespace, in which\n"
        "                        it must have been started\n"
        "     --config-dir DIR   Read only DIR/sockbrokerd.conf\n"
        "     --runtime-dir DIR  Directory of the socket routes (default /run/sockbroker)\n"
        "\n"
        "See the sockbroker-routes(8) man page for details.\n";

constexpr int kUsage = 2;

enum LongOption : int { kVersion = 256, kDumpSeccomp };

constexpr auto kLongOptions = sockbroker::table_of(std::array{
        sockbroker::flag("help", 'h'),
        sockbroker::flag("version", kVersion),
        sockbroker::flag("dump-seccomp", kDumpSeccomp),
        sockbroker::valued("netns", sockbroker::DirectoryOptions::kNetns),
        sockbroker::valued("config-dir", sockbroker::DirectoryOptions::kConfigDir),
        sockbroker::valued("runtime-dir", sockbroker::DirectoryOptions::kRuntimeDir),
});

int complain(const std::string& text, int status = EXIT_FAILURE) {
        sockbroker::print_to_stderr(fmt::format("sockbroker-routes: {}\n", text));
        return status;
}

int show(int what) {
        if (what == 'h') {
                fmt::print("{}", kHelp);
                return EXIT_SUCCESS;
        }
        if (what == kVersion) {
                fmt::print("sockbroker-routes {}\n", SOCKBROKER_VERSION);
                return EXIT_SUCCESS;
        }
        const auto filter = sockbroker::routes::describe_routes_filter();
        if (!filter) {
                return complain(filter.error().text());
        }
        fmt::print("{}", *filter);
        return EXIT_SUCCESS;
}

int run(int argc, char** argv) {
        using namespace sockbroker;
        DirectoryOptions directory_options;
        int shown = 0;  // the first of the options that show something and end
        const auto first = read_options(argc, argv, ":h", kLongOptions, [&](const GivenOption& given) -> Result<void> {
                if (DirectoryOptions::has(given.code)) {
                        return directory_options.take(given);
                }
                shown = shown == 0 ? given.code : shown;
                return {};
        });
        if (!first) {
                return complain(first.error().text(), kUsage);
        }
        if (shown != 0) {
                return show(shown);
        }
        if (*first < argc) {
                return complain(fmt::format("takes no arguments, found \"{}\"; see --help", argv[*first]), kUsage);
        }
        const auto directories = directory_options.directories();
        if (const auto checked = check_netns(directory_options.netns()); !checked) {
                return complain(checked.error().text());
        }
        // The broker says what is wrong with it.
        const auto config = load_broker_config(directories.config_dirs).config;
        const auto done = routes::serve(
                {.socket_path = directories.runtime_dir + "/routes",
                 .numbers = {.protocol = config.routes.protocol, .announce_table = config.routes.announce_table},
                 .most = PolicyLimits::kMostBindings});  // whatever the broker may have now: it may be raised
        return done ? EXIT_SUCCESS : complain(done.error().text());
}

}  // namespace

int main(int argc, char** argv) {
        try {
                return run(argc, argv);
        } catch (const std::exception& error) {
                return complain(error.what());
        }
}
