// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/options.h"

#include <getopt.h>

#include <fmt/format.h>

#include "broker/daemon/confine.h"

namespace sockbroker {

namespace {

constexpr const char* kHelp = R"(sockbrokerd [OPTIONS...]

Takes sockets from unprivileged services, checks them against policy, and lets
the kernel deliver packets of whole prefixes and port ranges to them.

  -h --help             Show this help
     --version          Show the version
     --dump-seccomp     Show the filter of system calls
     --load             Load and pin the programs that dispatch needs, as
                        sockbrokerd-load.service does, and end
     --links            Leave sockets to watch network interfaces by for the
                        broker, as sockbrokerd-links.service does, and end
     --netns NAME       Serve the named network namespace, in which it must
                        have been started: all places below become those of
                        that name, DIR/netns/NAME
     --config-dir DIR   Read only DIR/conf.d/*.conf and DIR/sockbrokerd.conf
     --runtime-dir DIR  Place of the sockets notify and control
                        (default /run/sockbroker)
     --bpffs DIR        BPF file system that keeps dispatch alive
                        (default /run/sockbroker/bpf)
     --state-dir DIR    Place of the policy last taken
                        (default /var/lib/sockbroker)

See the sockbrokerd(8) man page for details.
)";

}  // namespace

std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_status) {
        enum { kVersion = 256, kDumpSeccomp, kLinks, kLoad, kNetns, kConfigDir, kRuntimeDir, kBpffs, kStateDir };
        static constexpr option kOptions[] = {
                {"help", no_argument, nullptr, 'h'},
                {"version", no_argument, nullptr, kVersion},
                {"dump-seccomp", no_argument, nullptr, kDumpSeccomp},
                {"links", no_argument, nullptr, kLinks},
                {"load", no_argument, nullptr, kLoad},
                {"netns", required_argument, nullptr, kNetns},
                {"config-dir", required_argument, nullptr, kConfigDir},
                {"runtime-dir", required_argument, nullptr, kRuntimeDir},
                {"bpffs", required_argument, nullptr, kBpffs},
                {"state-dir", required_argument, nullptr, kStateDir},
                {nullptr, 0, nullptr, 0},
        };
        DaemonOptions options;
        DefaultPlaces named{.config_dirs = {}, .runtime_dir = {}, .bpffs = {}, .state_dir = {}};
        int c = 0;
        while ((c = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1) {
                switch (c) {
                case 'h':
                        fmt::print("{}", kHelp);
                        exit_status = 0;
                        return std::nullopt;
                case kVersion:
                        fmt::print("sockbroker {}\n", SOCKBROKER_VERSION);
                        exit_status = 0;
                        return std::nullopt;
                case kDumpSeccomp: {
                        const auto filter = describe_filter();
                        fmt::print(filter ? stdout : stderr, "{}", filter ? *filter : filter.error().text() + "\n");
                        exit_status = filter ? 0 : 1;
                        return std::nullopt;
                }
                case kLinks:
                        options.links = true;
                        break;
                case kLoad:
                        options.load = true;
                        break;
                case kNetns: {
                        const auto places = places_of_netns(optarg);
                        if (!places) {
                                fmt::print(stderr, "sockbrokerd: {}\n", places.error().text());
                                exit_status = 2;
                                return std::nullopt;
                        }
                        options.netns = optarg;
                        static_cast<DefaultPlaces&>(options) = *places;
                        break;
                }
                case kConfigDir:
                        named.config_dirs = {optarg};
                        break;
                case kRuntimeDir:
                        named.runtime_dir = optarg;
                        break;
                case kBpffs:
                        named.bpffs = optarg;
                        break;
                case kStateDir:
                        named.state_dir = optarg;
                        break;
                default:
                        exit_status = 2;
                        return std::nullopt;
                }
        }
        if (optind < argc) {
                fmt::print(stderr, "sockbrokerd: takes no arguments, found \"{}\"; see sockbrokerd --help\n",
                           argv[optind]);
                exit_status = 2;
                return std::nullopt;
        }
        options.override_by(named);
        return options;
}

}  // namespace sockbroker
