// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See options.h. A new option gets its line in kLongOptions, in the switch, in help_text(), in sockbroker-run(1)
// and in the shell completion; a test compares them.
#include "sandbox/run/options.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "broker/base/command_line.h"
#include "broker/base/printable.h"
#include "broker/protocol/service_name.h"

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
        kSupervise,
        kBind,
        kAskedNames,
        kUserNamespace,
        kLogDenials,
        kDump,
        kVersion
};

constexpr auto kLongOptions = table_of(std::array{
        flag("help", 'h'),
        flag("version", kVersion),
        valued("profile", kProfile),
        valued("service", kService),
        flag("no-register", kNoRegister),
        flag("retrieve", kRetrieve),
        valued("listen-stream", kListenStream),
        valued("listen-datagram", kListenDatagram),
        valued("runtime-dir", kRuntimeDir),
        flag("supervise", kSupervise),
        valued("bind", kBind),
        flag("asked-names", kAskedNames),
        valued("user-namespace", kUserNamespace),
        flag("log-denials", kLogDenials),
        flag("dump", kDump),
});

std::unexpected<Error> no_service(const std::string& name) {
        return fail(fmt::format("\"{}\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -", printable(name)));
}

// [::ffff:127.0.0.1], which the words of policies do not have: there no address is of both families, a socket may be.
std::optional<Address> parse_mapped(std::string_view host) {
        if (host.size() < 2 || host.front() != '[' || host.back() != ']') {
                return std::nullopt;
        }
        in6_addr parsed{};
        if (inet_pton(AF_INET6, std::string(host.substr(1, host.size() - 2)).c_str(), &parsed) != 1 ||
            !IN6_IS_ADDR_V4MAPPED(&parsed)) {
                return std::nullopt;
        }
        Address address{.family = Family::kIpv6, .bytes = {}};
        std::memcpy(address.bytes.data(), &parsed, sizeof parsed);
        return address;
}

// ADDRESS:PORT where port 0 is one of the kernel's choice.
Result<Endpoint> parse_address_to_bind(const std::string& text) {
        const auto colon = text.rfind(':');
        const bool any_port = colon != std::string::npos && text.substr(colon + 1) == "0";
        const auto mapped = parse_mapped(std::string_view(text).substr(0, colon));
        // Its port is checked beside an address of any kind, a port 0 is not.
        const std::string checked =
                (mapped ? "[::1]" : text.substr(0, colon)) + (any_port                     ? ":1"
                                                              : colon == std::string::npos ? ""
                                                                                           : text.substr(colon));
        const auto at = parse_endpoint(checked);
        if (!at) {
                return fail(any_port
                                    ? fmt::format("\"{}\" is not ADDRESS:PORT (IPv6 addresses stand in brackets)", text)
                                    : at.error().text());
        }
        return Endpoint{mapped.value_or(at->address), any_port ? std::uint16_t{0} : at->port};
}

Result<Listen> parse_listen(Protocol protocol, const std::string& text) {
        const auto equals = text.find('=');
        std::string service = equals == std::string::npos ? "" : text.substr(0, equals);
        if (equals != std::string::npos && !valid_service_name(service)) {
                return no_service(service);
        }
        const auto at = parse_address_to_bind(equals == std::string::npos ? text : text.substr(equals + 1));
        if (!at) {
                return fail(fmt::format("cannot listen there: {}", printable(at.error().text())));
        }
        return Listen{protocol, *at, std::move(service)};
}

Result<void> take(Options& options, const GivenOption& given) {
        const std::string& value = given.value;
        switch (given.code) {
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
                        return no_service(value);
                }
                options.services.push_back(value);
                break;
        case kNoRegister:
                options.registers = false;
                break;
        case kRetrieve:
                options.retrieves = true;
                break;
        case kListenStream:
        case kListenDatagram: {
                auto listen = parse_listen(given.code == kListenStream ? Protocol::kTcp : Protocol::kUdp, value);
                if (!listen) {
                        return std::unexpected(listen.error());
                }
                options.listens.push_back(*listen);
                break;
        }
        case kRuntimeDir:
                return take_directory(options.runtime_dir, given);
        case kSupervise:
                options.supervise = true;
                break;
        case kBind: {
                const auto limit = supervise::parse_limit(value);
                if (!limit) {
                        return std::unexpected(limit.error());
                }
                options.limits.push_back(*limit);
                break;
        }
        case kAskedNames:
                options.names = true;
                break;
        case kUserNamespace:
                if (value != "auto" && value != "yes" && value != "no") {
                        return fail("option --user-namespace wants auto, yes or no");
                }
                options.user_namespace = value == "auto"  ? UserNamespace::kAuto
                                         : value == "yes" ? UserNamespace::kYes
                                                          : UserNamespace::kNo;
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
        if (!options.supervise &&
            (!options.limits.empty() || options.names || options.user_namespace != UserNamespace::kAuto)) {
                return fail("options --bind, --asked-names and --user-namespace are for --supervise");
        }
        if (options.supervise && (options.retrieves || !options.listens.empty())) {
                return fail(
                        "with --supervise the program makes its sockets itself, and held ones take their place: it "
                        "excludes --retrieve, --listen-stream and --listen-datagram");
        }
        if (options.retrieves && named_services(options).empty()) {
                return fail("option --retrieve needs --service=NAME, the service whose sockets are held");
        }
        const bool unnamed = std::ranges::any_of(options.listens, &std::string::empty, &Listen::service);
        if (unnamed && options.registers && options.services.empty()) {
                return fail("sockets of --listen-stream= and --listen-datagram= need --service=NAME to be registered");
        }
        if (unnamed && options.registers && options.services.size() > 1) {
                return fail(
                        "with several --service= each socket says whose it is, as in: "
                        "--listen-stream=NAME=127.0.0.1:8080");
        }
        if (options.retrieves && !options.registers) {
                return fail("option --retrieve registers what it gets, so it excludes --no-register");
        }
        return {};
}

}  // namespace

std::vector<std::string> named_services(const Options& options) {
        std::vector<std::string> names;
        const auto add = [&](const std::string& name) {
                if (!name.empty() && std::ranges::find(names, name) == names.end()) {
                        names.push_back(name);
                }
        };
        std::ranges::for_each(options.services, add);
        std::ranges::for_each(options.listens, add, &Listen::service);
        return names;
}

Result<Options> parse_options(int argc, char* const* argv) {
        Options options;
        // +: what follows the program's name is the program's.
        const auto first = read_options(argc, argv, "+:h", kLongOptions,
                                        [&](const GivenOption& given) { return take(options, given); });
        if (!first) {
                return std::unexpected(first.error());
        }
        options.command.assign(argv + *first, argv + argc);
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
               "  --service=NAME           Register all sockets for this service; several:\n"
               "                           each for the one it is named after\n"
               "  --no-register            Pass sockets on without asking the broker\n"
               "  --retrieve               First ask for what the broker holds for it\n"
               "  --listen-stream=[NAME=]ADDRESS:PORT\n"
               "                           Listen there (TCP) if no socket was passed,\n"
               "                           for service NAME\n"
               "  --listen-datagram=[NAME=]ADDRESS:PORT\n"
               "                           Bind there (UDP) if no socket was passed\n"
               "  --runtime-dir=DIR        Where the broker's sockets are\n"
               "\n"
               "Programs that know nothing of this:\n"
               "  --supervise              Let the program bind as it always did: policy says\n"
               "                           which service takes it\n"
               "  --bind=PROTO:PORTS       Take over these alone, as tcp:80 or udp:*; several\n"
               "  --asked-names            Let getsockname(2) tell what the program asked for\n"
               "  --user-namespace=WHEN    auto (as needed), yes, no: where the supervisor\n"
               "                           could not look into the program else\n"
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
