// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/options.h"

#include <array>
#include <cstdlib>

#include <fmt/format.h>

#include "broker/base/command_line.h"
#include "broker/base/standard_streams.h"
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
                        have been started: all directories below become those of
                        that name, DIR/netns/NAME
     --config-dir DIR   Read only DIR/conf.d/*.conf and DIR/sockbrokerd.conf
     --runtime-dir DIR  Directory of the sockets notify and control
                        (default /run/sockbroker)
     --bpffs DIR        BPF file system that keeps dispatch alive
                        (default /run/sockbroker/bpf)
     --state-dir DIR    Directory of the last-known-good policy
                        (default /var/lib/sockbroker)

See the sockbrokerd(8) man page for details.
)";

constexpr int kUsage = 2;

enum LongOption : int { kVersion = 256, kDumpSeccomp, kLinks, kLoad };

constexpr auto kLongOptions = table_of(
        std::array{
                flag("help", 'h'),
                flag("version", kVersion),
                flag("dump-seccomp", kDumpSeccomp),
                flag("links", kLinks),
                flag("load", kLoad),
        },
        DirectoryOptions::kRows);

int dump_filter() {
        const auto filter = describe_filter();
        fmt::print(filter ? stdout : stderr, "{}", filter ? *filter : filter.error().text() + "\n");
        return filter ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_status) {
        DaemonOptions options;
        DirectoryOptions directories;
        int shown = 0;  // the first of the options that show something and end
        const auto first = read_options(argc, argv, ":h", kLongOptions, [&](const GivenOption& given) -> Result<void> {
                switch (given.code) {
                case 'h':
                case kVersion:
                case kDumpSeccomp:
                        shown = shown == 0 ? given.code : shown;
                        return {};
                case kLinks:
                        options.links = true;
                        return {};
                case kLoad:
                        options.load = true;
                        return {};
                default:
                        return directories.take(given);
                }
        });
        if (!first) {
                print_to_stderr(fmt::format("sockbrokerd: {}\n", first.error().text()));
                exit_status = kUsage;
                return std::nullopt;
        }
        exit_status = EXIT_SUCCESS;
        switch (shown) {
        case 'h':
                fmt::print("{}", kHelp);
                return std::nullopt;
        case kVersion:
                fmt::print("sockbroker {}\n", SOCKBROKER_VERSION);
                return std::nullopt;
        case kDumpSeccomp:
                exit_status = dump_filter();
                return std::nullopt;
        default:
                break;
        }
        if (*first < argc) {
                print_to_stderr(fmt::format("sockbrokerd: takes no arguments, found \"{}\"; see sockbrokerd --help\n",
                                            argv[*first]));
                exit_status = kUsage;
                return std::nullopt;
        }
        static_cast<Directories&>(options) = directories.directories();
        options.netns = directories.netns();
        return options;
}

}  // namespace sockbroker
