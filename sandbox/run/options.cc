// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See options.h. A new option gets its line in kLongOptions, in the switch, in help_text(), in sockbroker-run(1) and in
// the shell completion; a test compares them.
#include "sandbox/run/options.h"

#include <fmt/format.h>
#include <getopt.h>

#include "broker/base/printable.h"
#include "broker/protocol/request.h"

namespace sockbroker::launcher {

namespace {

enum LongOption : int {
        kProfile = 256,
        kService,
        kNoRegister,
        kRetrieve,
        kListenStream,
        kListenDatagram,
        kRuntimeDir,
        kLogDenials,
        kDump,
        kVersion
};

constexpr option kLongOptions[] = {
        {"help", no_argument, nullptr, 'h'},
        {"version", no_argument, nullptr, kVersion},
        {"profile", required_argument, nullptr, kProfile},
        {"service", required_argument, nullptr, kService},
        {"no-register", no_argument, nullptr, kNoRegister},
        {"retrieve", no_argument, nullptr, kRetrieve},
        {"listen-stream", required_argument, nullptr, kListenStream},
        {"listen-datagram", required_argument, nullptr, kListenDatagram},
        {"runtime-dir", required_argument, nullptr, kRuntimeDir},
        {"log-denials", no_argument, nullptr, kLogDenials},
        {"dump", no_argument, nullptr, kDump},
        {nullptr, 0, nullptr, 0},
};

Result<Listen> parse_listen(Protocol protocol, const std::string& text) {
        const bool any_port = text.ends_with(":0");
        const auto at = parse_endpoint(any_port ? text.substr(0, text.size() - 1) + "1" : text);
        if (!at) {
                return fail(fmt::format("cannot listen there: {}", at.error().text()));
        }
        return Listen{protocol, {at->address, any_port ? std::uint16_t{0} : at->port}};
}

Result<void> take(Options& options, int c, const std::string& value) {
        switch (c) {
        case 'h':
                options.help = true;
                break;
        case kVersion:
                options.version = true;
                break;
        case kProfile:
                options.profile = value;
                break;
        case kService:
                if (!valid_service_name(value)) {
                        return fail(fmt::format("\"{}\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -",
                                                printable(value)));
                }
                options.service = value;
                break;
        case kNoRegister:
                options.registers = false;
                break;
        case kRetrieve:
                options.retrieves = true;
                break;
        case kListenStream:
        case kListenDatagram: {
                auto listen = parse_listen(c == kListenStream ? Protocol::kTcp : Protocol::kUdp, value);
                if (!listen) {
                        return std::unexpected(listen.error());
                }
                options.listens.push_back(*listen);
                break;
        }
        case kRuntimeDir:
                if (value.empty()) {
                        return fail("option --runtime-dir wants a directory");
                }
                options.runtime_dir = value;
                break;
        case kLogDenials:
                options.log_only = true;
                break;
        case kDump:
                options.dump = true;
                break;
        default:
                break;
        }
        return {};
}

Result<void> check(const Options& options) {
        if (options.help || options.version) {
                return {};
        }
        if (options.command.empty() != options.dump) {
                return fail(options.dump ? "option --dump runs no program"
                                         : "a program is missing, as in: sockbroker-run --service=web /usr/bin/server");
        }
        if (options.retrieves && options.service.empty()) {
                return fail("option --retrieve needs --service=NAME, the service whose sockets are held");
        }
        if (!options.listens.empty() && options.registers && options.service.empty()) {
                return fail("sockets of --listen-stream= and --listen-datagram= need --service=NAME to be registered");
        }
        if (options.retrieves && !options.registers) {
                return fail("option --retrieve registers what it gets, so it excludes --no-register");
        }
        return {};
}

}  // namespace

Result<Options> parse_options(int argc, char* const* argv) {
        Options options;
        ::optind = 0;  // glibc: start anew, and read POSIXLY_CORRECT again
        ::opterr = 0;
        while (true) {
                // +: what follows the program's name is the program's.
                const int c = ::getopt_long(argc, argv, "+:h", kLongOptions, nullptr);
                if (c == -1) {
                        break;
                }
                if (c == ':') {
                        return fail(fmt::format("option {} wants a value", printable(argv[::optind - 1])));
                }
                if (c == '?') {
                        // A short option stands in optopt, a long one is the argument just read.
                        const std::string name = ::optopt > 0 && ::optopt < 256
                                                         ? fmt::format("-{}", static_cast<char>(::optopt))
                                                         : std::string(argv[::optind - 1]);
                        return fail(fmt::format("option {} is unknown, ambiguous, or takes no value, see --help",
                                                printable(name)));
                }
                if (auto taken = take(options, c, ::optarg == nullptr ? "" : ::optarg); !taken) {
                        return std::unexpected(taken.error());
                }
        }
        options.command.assign(argv + ::optind, argv + argc);
        if (auto checked = check(options); !checked) {
                return std::unexpected(checked.error());
        }
        return options;
}

std::string help_text() {
        return "sockbroker-run [OPTIONS...] PROGRAM [ARGUMENTS...]\n"
               "\n"
               "Hand sockets to the broker, then run a program in a sandbox.\n"
               "\n"
               "Sockets:\n"
               "  --service=NAME           Register all sockets for this service\n"
               "  --no-register            Pass sockets on without asking the broker\n"
               "  --retrieve               First ask for what the broker holds for it\n"
               "  --listen-stream=ADDRESS:PORT\n"
               "                           Listen there (TCP) if no socket was passed\n"
               "  --listen-datagram=ADDRESS:PORT\n"
               "                           Bind there (UDP) if no socket was passed\n"
               "  --runtime-dir=DIR        Where the broker's sockets are\n"
               "\n"
               "Sandbox:\n"
               "  --profile=NAME|PATH      default (which it is), interfaces, strict, your own\n"
               "  --log-denials            Trial: log what would be denied, deny nothing\n"
               "  --dump                   Show the profile with its drop-ins, run nothing\n"
               "\n"
               "  -h --help                Show this help\n"
               "     --version             Show the version\n"
               "\n"
               "See sockbroker-run(1) for profiles and exit statuses.\n";
}

}  // namespace sockbroker::launcher
