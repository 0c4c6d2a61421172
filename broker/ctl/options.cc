// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See options.h. A new option gets its line in kLongOptions, in the switch, in help_text(), in sockbrokerctl(1)
// and in the shell completion; a test compares them.
#include "broker/ctl/options.h"

#include <fmt/format.h>

#include <array>

#include "broker/base/command_line.h"
#include "broker/base/net.h"
#include "broker/base/printable.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

enum LongOption : int {
        kJson = 256,
        kNoLegend,
        kNoPager,
        kVersion,
        kFor,
        kFrom,
        kConfirm,
        kKeep,
        kLocalRoutes,
        kOffline,
        kStrict,
        kRoot,
        kInterface,
        kTimeout,
        kPid
};

constexpr auto kLongOptions = table_of(
        std::array{
                flag("help", 'h'),
                flag("version", kVersion),
                flag("quiet", 'q'),
                flag("full", 'l'),
                valued("json", kJson),
                flag("no-legend", kNoLegend),
                flag("no-pager", kNoPager),
                valued("for", kFor),
                valued("confirm", kConfirm),
                flag("keep", kKeep),
                flag("local-routes", kLocalRoutes),
                flag("offline", kOffline),
                flag("strict", kStrict),
                valued("root", kRoot),
                valued("from", kFrom),
                valued("interface", kInterface),
                valued("timeout", kTimeout),
                valued("pid", kPid),
        },
        DirectoryOptions::kRows);

Result<JsonMode> parse_json_mode(std::string_view text) {
        if (text == "short") {
                return JsonMode::kShort;
        }
        if (text == "pretty") {
                return JsonMode::kPretty;
        }
        if (text == "off") {
                return JsonMode::kOff;
        }
        return fail(fmt::format("cannot print JSON as \"{}\", write --json=short, pretty or off", printable(text)));
}

Result<void> take(Options& options, const GivenOption& given) {
        const std::string& value = given.value;
        switch (given.code) {
        case 'h':
                options.help = true;
                break;
        case 'q':
                options.quiet = true;
                options.legend = false;
                break;
        case 'l':
                options.full = true;
                break;
        case kVersion:
                options.version = true;
                break;
        case kJson: {
                if (value == "help") {
                        options.json_help = true;
                        break;
                }
                const Result<JsonMode> mode = parse_json_mode(value);
                if (!mode) {
                        return std::unexpected(mode.error());
                }
                options.json = *mode;
                break;
        }
        case kNoLegend:
                options.legend = false;
                break;
        case kNoPager:
                options.pager = false;
                break;
        case kFor:
                if (value != "live" && value != "drained") {
                        return fail(fmt::format("cannot wait for \"{}\", write --for=live or --for=drained",
                                                printable(value)));
                }
                options.wait_for = value;
                break;
        case kConfirm: {
                const Result<std::chrono::microseconds> span = parse_time_span(value);
                if (!span) {
                        return std::unexpected(span.error());
                }
                if (*span < std::chrono::seconds(1) || *span > std::chrono::hours(12)) {
                        return fail("--confirm= wants a time from 1 s to 12 h");
                }
                options.confirm = *span;
                break;
        }
        case kKeep:
                options.keep = true;
                break;
        case kLocalRoutes:
                options.local_routes = true;
                break;
        case kOffline:
                options.offline = true;
                break;
        case kStrict:
                options.strict = true;
                break;
        case kRoot:
                return take_directory(options.root, given);
        case kFrom:
                options.from = value;
                break;
        case kInterface:
                options.interface = value;
                break;
        case kTimeout: {
                const Result<std::chrono::microseconds> span = parse_time_span(value);
                if (!span) {
                        return std::unexpected(span.error());
                }
                options.timeout = *span;
                options.timeout_given = true;
                break;
        }
        case kPid: {
                const auto number = parse_number(value, INT32_MAX);
                if (!number || *number == 0) {
                        return fail(fmt::format("\"{}\" is no number of a process", printable(value)));
                }
                options.pid = static_cast<std::int32_t>(*number);
                break;
        }
        default:
                break;
        }
        return {};
}

}  // namespace

Result<Options> parse_options(int argc, char* const* argv) {
        Options options;
        DirectoryOptions directories;
        const auto first = read_options(argc, argv, ":hql", kLongOptions, [&](const GivenOption& given) {
                return DirectoryOptions::has(given.code) ? directories.take(given) : take(options, given);
        });
        if (!first) {
                return std::unexpected(first.error());
        }
        static_cast<Directories&>(options) = directories.directories();
        options.netns = directories.netns();
        options.config_dir = directories.config_dir();
        for (auto& dir : options.config_dirs) {
                dir.insert(0, options.root);
        }
        if (*first < argc) {
                options.verb = argv[*first];
                options.arguments.assign(argv + *first + 1, argv + argc);
        }
        return options;
}

JsonMode json_wanted(int argc, char* const* argv) {
        constexpr std::string_view kName = "--json";
        auto mode = JsonMode::kOff;
        for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; i++) {
                const std::string_view given = argv[i];
                const auto value = given == kName && i + 1 < argc ? parse_json_mode(argv[i + 1])
                                   : given.starts_with("--json=") ? parse_json_mode(given.substr(kName.size() + 1))
                                                                  : mode;
                mode = value.value_or(mode);
        }
        return mode;
}

std::string help_text() {
        std::string text =
                "sockbrokerctl [OPTION...] [VERB [ARGUMENT]]\n"
                "\n"
                "Query and control the socket broker.\n"
                "\n"
                "Verbs:\n";
        for (const Verb& verb : verbs()) {
                text += fmt::format("  {:<27}{}\n", verb.synopsis, verb.help);
        }
        text += "\n"
                "Options:\n"
                "  -h --help             Show this help\n"
                "     --version          Show the version of this tool\n"
                "     --json=MODE        Print JSON: short, pretty or off (help lists them)\n"
                "  -q --quiet            Print neither legends nor what was done\n"
                "  -l --full             Do not cut tables to the terminal\n"
                "     --no-legend        Print neither headers nor counts\n"
                "     --no-pager         Do not pipe output into a pager\n"
                "     --for=STATE        What to wait for: live or drained\n"
                "     --pid=PID          Register sockets of this process\n"
                "     --confirm=SPAN     Undo the reload after that time unless it is kept\n"
                "     --keep             Keep the policy that is on trial\n"
                "     --local-routes     Unload removes the routes of LocalRoutes= too\n"
                "     --offline          Verify the text alone, nothing of this host\n"
                "     --strict           Verify fails for warnings too\n"
                "     --root=DIR         Verify and cat the policies of another root\n"
                "     --from=ADDR:PORT   The client whose packet is explained\n"
                "     --interface=NAME   The interface on which it arrives\n"
                "     --timeout=SPAN     Wait at most that long\n"
                "     --netns=NAME       Use the broker of this network namespace\n"
                "     --config-dir=DIR   Read DIR/conf.d/*.conf and DIR/sockbrokerd.conf only\n"
                "     --runtime-dir=DIR  Where the broker's sockets are (/run/sockbroker)\n"
                "     --bpffs=DIR        Where the broker's pins are (/run/sockbroker/bpf)\n"
                "     --state-dir=DIR    Where the broker keeps its state (/var/lib/sockbroker)\n"
                "\n"
                "See sockbrokerctl(1) for details.\n";
        return text;
}

}  // namespace sockbroker::ctl
