// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-routes: makes the routes that policy asks for, sockbroker-routes(8). The one process of the broker's that
// has CAP_NET_ADMIN.
#include <getopt.h>

#include <cstdlib>
#include <exception>

#include <fmt/format.h>

#include "broker/base/default_places.h"
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
        "     --runtime-dir DIR  Place of the socket routes (default /run/sockbroker)\n"
        "\n"
        "See the sockbroker-routes(8) man page for details.\n";

int complain(const std::string& text, int status = EXIT_FAILURE) {
        fmt::print(stderr, "sockbroker-routes: {}\n", text);
        return status;
}

int run(int argc, char** argv) {
        using namespace sockbroker;
        enum { kVersion = 256, kDumpSeccomp, kNetns, kConfigDir, kRuntimeDir };
        constexpr int kUsage = 2;
        static constexpr option kOptions[] = {
                {"help", no_argument, nullptr, 'h'},
                {"version", no_argument, nullptr, kVersion},
                {"dump-seccomp", no_argument, nullptr, kDumpSeccomp},
                {"netns", required_argument, nullptr, kNetns},
                {"config-dir", required_argument, nullptr, kConfigDir},
                {"runtime-dir", required_argument, nullptr, kRuntimeDir},
                {nullptr, 0, nullptr, 0},
        };
        DefaultPlaces places;
        DefaultPlaces named{.config_dirs = {}, .runtime_dir = {}, .bpffs = {}, .state_dir = {}};
        std::string netns;
        int c = 0;
        while ((c = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1) {
                switch (c) {
                case 'h':
                        fmt::print("{}", kHelp);
                        return EXIT_SUCCESS;
                case kVersion:
                        fmt::print("sockbroker-routes {}\n", SOCKBROKER_VERSION);
                        return EXIT_SUCCESS;
                case kDumpSeccomp: {
                        const auto filter = routes::describe_routes_filter();
                        if (!filter) {
                                return complain(filter.error().text());
                        }
                        fmt::print("{}", *filter);
                        return EXIT_SUCCESS;
                }
                case kNetns: {
                        const auto of_netns = places_of_netns(optarg);
                        if (!of_netns) {
                                return complain(of_netns.error().text(), kUsage);
                        }
                        netns = optarg;
                        places = *of_netns;
                        break;
                }
                case kConfigDir:
                        named.config_dirs = {optarg};
                        break;
                case kRuntimeDir:
                        named.runtime_dir = optarg;
                        break;
                default:
                        return kUsage;
                }
        }
        if (optind < argc) {
                return complain(fmt::format("takes no arguments, found \"{}\"; see --help", argv[optind]), kUsage);
        }
        places.override_by(named);
        if (const auto checked = check_netns(netns); !checked) {
                return complain(checked.error().text());
        }
        // The broker says what is wrong with it.
        const auto config = load_broker_config(places.config_dirs).config;
        const auto done = routes::serve(
                {.socket_path = places.runtime_dir + "/routes",
                 .numbers = {.protocol = config.routes.protocol, .announce_table = config.routes.announce_table},
                 .most = config.limits.max_bindings});
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
