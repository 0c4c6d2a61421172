// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The grammar of requests. One pass over the lines collects the broker's keys and finds what is wrong with each;
// then the combination is judged. Every mistake has one message of its own (tests/data/protocol_mistakes.json lists
// them). Never reflects bytes of a peer unescaped, since messages go to journals and terminals.
#include "broker/protocol/request.h"

#include <array>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/base/net.h"

namespace sockbroker {
namespace {

enum Key : std::size_t {
        kFdStore,
        kFdStoreRemove,
        kFdRetrieve,
        kFdName,
        kFdPoll,
        kBarrierKey,
        kVerbKey,
        kTimeout,
        kPid,
        kProtocol,
        kAddress,
        kPort,
        kMigrate,
        kFrom,
        kInterface,
        kKeys
};

constexpr std::array<std::string_view, kKeys> kNames = {
        "FDSTORE", "FDSTOREREMOVE", "FDRETRIEVE", "FDNAME", "FDPOLL",  "BARRIER", "VERB",     "TIMEOUT_USEC",
        "PID",     "PROTOCOL",      "ADDRESS",    "PORT",   "MIGRATE", "FROM",    "INTERFACE"};

constexpr std::size_t kMaxInterfaceName = 15;              // IFNAMSIZ less the terminator
constexpr std::uint64_t kMaxPid = std::uint64_t{1} << 22;  // PID_MAX_LIMIT of the kernel

bool is_known(Channel channel, std::size_t key) {
        return channel == Channel::kControl || (key != kFdRetrieve && key < kVerbKey);
}

struct NamedVerb {
        std::string_view name;
        Verb verb;
};

constexpr std::array kVerbs = {
        NamedVerb{"status", Verb::kStatus},
        NamedVerb{"list", Verb::kList},
        NamedVerb{"bindings", Verb::kBindings},
        NamedVerb{"reload", Verb::kReload},
        NamedVerb{"unregister", Verb::kUnregister},
        NamedVerb{"unload", Verb::kUnload},
        NamedVerb{"version", Verb::kVersion},
        NamedVerb{"hold", Verb::kHold},
        NamedVerb{"drain", Verb::kDrain},
        NamedVerb{"undrain", Verb::kUndrain},
        NamedVerb{"match", Verb::kMatch},
        NamedVerb{"explain", Verb::kExplain},
        NamedVerb{"diff", Verb::kDiff},
        NamedVerb{"keep", Verb::kKeep},
        NamedVerb{"counted", Verb::kCounted},
        NamedVerb{"monitor", Verb::kMonitor},
        NamedVerb{"prepare", Verb::kPrepare},
};

std::unexpected<Refusal> malformed(std::string message) {
        return std::unexpected(Refusal{ResultCode::kMalformed, std::move(message), {}});
}

// In quotes, cut and with everything but printable ASCII escaped.
std::string quoted(std::string_view text) {
        constexpr std::size_t kShown = 64;
        std::string result = "\"";
        for (const char c : text.substr(0, kShown)) {
                if (c == '"' || c == '\\') {
                        result += '\\';
                        result += c;
                } else if (c < 0x20 || c > 0x7e) {
                        result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
                } else {
                        result += c;
                }
        }
        return result + (text.size() > kShown ? "...\"" : "\"");
}

bool valid_key(std::string_view key) {
        const auto letter = [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; };
        if (key.empty() || !letter(key[0])) {
                return false;
        }
        for (const char c : key) {
                if (!letter(c) && (c < '0' || c > '9')) {
                        return false;
                }
        }
        return true;
}

std::optional<Key> find_key(Channel channel, std::string_view name) {
        for (std::size_t i = 0; i < kKeys; i++) {
                if (kNames[i] == name && is_known(channel, i)) {
                        return static_cast<Key>(i);
                }
        }
        return std::nullopt;
}

std::optional<Verb> find_verb(std::string_view name) {
        for (const auto& entry : kVerbs) {
                if (entry.name == name) {
                        return entry.verb;
                }
        }
        return std::nullopt;
}

// The broker's keys of one message, each value already found good.
struct Fields {
        std::array<std::optional<std::string_view>, kKeys> values;
        std::array<unsigned, kKeys> lines{};
        std::string_view foreign;  // notify: the first key that is not ours
        Verb verb = Verb::kNothing;
        std::uint64_t timeout_usec = 0;
        std::int32_t pid = 0;
        Protocol protocol = Protocol::kTcp;
        Address address;
        std::uint16_t port = 0;
        Endpoint from;

        [[nodiscard]] bool has(Key key) const { return values[key].has_value(); }
        [[nodiscard]] std::string service() const { return std::string(values[kFdName].value_or("")); }
};

// The names of a list with colons between them, as LISTEN_FDNAMES has it.
std::vector<std::string> split_names(std::string_view list) {
        std::vector<std::string> names;
        for (;;) {
                const auto end = list.find(':');
                names.emplace_back(list.substr(0, end));
                if (end == std::string_view::npos) {
                        return names;
                }
                list.remove_prefix(end + 1);
        }
}

std::unexpected<Refusal> no_service_name(std::string_view value) {
        return malformed(fmt::format("FDNAME={} is not a service name; a name is 1 to {} of A-Z a-z 0-9 . _ -",
                                     quoted(value), kMaxServiceName));
}

std::expected<void, Refusal> check_value(Fields& fields, Key key, std::string_view value) {
        switch (key) {
        case kFdName:
                // Whether it may be a list depends on the verb, which may come later.
                for (const auto& name : split_names(value)) {
                        if (!valid_service_name(name)) {
                                return no_service_name(value);
                        }
                }
                return {};
        case kPid: {
                const auto number = parse_number(value, kMaxPid);
                if (!number || *number == 0) {
                        return malformed(fmt::format("PID={} is no number of a process", quoted(value)));
                }
                fields.pid = static_cast<std::int32_t>(*number);
                return {};
        }
        case kProtocol: {
                const auto protocol = parse_protocol(value);
                if (!protocol) {
                        return malformed(fmt::format("PROTOCOL={} is not taken, it is tcp or udp", quoted(value)));
                }
                fields.protocol = *protocol;
                return {};
        }
        case kAddress: {
                const auto address = parse_address(value);
                if (!address) {
                        return malformed(
                                fmt::format("ADDRESS={} is no address; IPv6 stands without brackets, and a "
                                            "v4-mapped address is asked as the IPv4 one",
                                            quoted(value)));
                }
                fields.address = *address;
                return {};
        }
        case kPort: {
                const auto number = parse_number(value, 65535);
                if (!number || *number == 0) {
                        return malformed(fmt::format("PORT={} is no port from 1 to 65535", quoted(value)));
                }
                fields.port = static_cast<std::uint16_t>(*number);
                return {};
        }
        case kFrom: {
                const auto from = parse_endpoint(value);
                if (!from) {
                        return malformed(fmt::format("FROM={} is not ADDRESS:PORT, IPv6 in brackets", quoted(value)));
                }
                fields.from = *from;
                return {};
        }
        case kInterface:
                if (value.empty() || value.size() > kMaxInterfaceName) {
                        return malformed(fmt::format("INTERFACE={} is no name of an interface, of 1 to {} bytes",
                                                     quoted(value), kMaxInterfaceName));
                }
                return {};
        case kVerbKey: {
                const auto verb = find_verb(value);
                if (!verb) {
                        return malformed(fmt::format(
                                "unknown verb {}; VERB= is one of status list bindings reload "
                                "unregister unload version hold drain undrain match explain diff keep counted monitor "
                                "prepare",
                                quoted(value)));
                }
                fields.verb = *verb;
                return {};
        }
        case kTimeout: {
                const auto number = parse_number(value, kMaxHoldUsec);
                if (!number) {
                        return malformed(fmt::format("TIMEOUT_USEC={} is no number of microseconds, 12 hours at most",
                                                     quoted(value)));
                }
                fields.timeout_usec = *number;
                return {};
        }
        case kFdPoll:
                if (value != "0") {
                        return malformed(fmt::format("FDPOLL={} is not taken, the only value is 0", quoted(value)));
                }
                return {};
        default:
                if (value != "1") {
                        return malformed(
                                fmt::format("{}={} is not taken, the only value is 1", kNames[key], quoted(value)));
                }
                return {};
        }
}

std::expected<void, Refusal> take_line(Fields& fields, Channel channel, std::string_view line, unsigned number) {
        const auto equals = line.find('=');
        const auto name = line.substr(0, equals);
        if (equals == std::string_view::npos || !valid_key(name)) {
                return malformed(
                        fmt::format("line {}: {} is not KEY=VALUE; a key is upper-case letters, digits and _, "
                                    "from column one",
                                    number, quoted(line)));
        }
        const auto key = find_key(channel, name);
        if (!key) {
                if (channel == Channel::kControl) {
                        return malformed(
                                fmt::format("unknown key {}; the control socket knows FDSTORE FDSTOREREMOVE "
                                            "FDRETRIEVE FDNAME FDPOLL BARRIER VERB TIMEOUT_USEC PID PROTOCOL "
                                            "ADDRESS PORT MIGRATE FROM INTERFACE",
                                            quoted(name)));
                }
                if (fields.foreign.empty()) {
                        fields.foreign = name;
                }
                return {};
        }
        if (fields.has(*key)) {
                return malformed(fmt::format("{}= is given twice (lines {} and {}); give it once", name,
                                             fields.lines[*key], number));
        }
        const auto value = line.substr(equals + 1);
        if (auto good = check_value(fields, *key, value); !good) {
                return good;
        }
        fields.values[*key] = value;
        fields.lines[*key] = number;
        return {};
}

std::expected<Fields, Refusal> read_lines(Channel channel, std::string_view text) {
        Fields fields;
        while (text.ends_with('\n')) {
                text.remove_suffix(1);
        }
        for (unsigned number = 1; !text.empty(); number++) {
                const auto end = text.find('\n');
                const auto line = text.substr(0, end);
                if (line.empty()) {
                        return malformed(
                                fmt::format("line {} is empty; only the end of the text may hold empty lines", number));
                }
                if (auto taken = take_line(fields, channel, line, number); !taken) {
                        return std::unexpected(taken.error());
                }
                text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        }
        return fields;
}

std::expected<Request, Refusal> judge_barrier(const Fields& fields, std::size_t fds) {
        for (std::size_t i = 0; i < kKeys; i++) {
                if (i != kBarrierKey && fields.values[i]) {
                        return malformed(
                                fmt::format("BARRIER=1 stands alone in its message, here with {}=; send it as a "
                                            "message of its own",
                                            kNames[i]));
                }
        }
        if (!fields.foreign.empty()) {
                return malformed(
                        fmt::format("BARRIER=1 stands alone in its message, here with {}; send it as a message of "
                                    "its own",
                                    quoted(fields.foreign)));
        }
        if (fds != 1) {
                return malformed(
                        fmt::format("BARRIER=1 takes exactly one descriptor, not {}; send the write end of a pipe "
                                    "and wait for its hang-up",
                                    fds));
        }
        return Request{Verb::kBarrier, {}};
}

// The keys that say what to do exclude each other.
std::expected<std::optional<Key>, Refusal> find_action(const Fields& fields) {
        std::optional<Key> action;
        for (const Key key : {kFdStore, kFdStoreRemove, kFdRetrieve, kVerbKey}) {
                if (!fields.has(key)) {
                        continue;
                }
                if (action) {
                        return malformed(fmt::format("{}= and {}= exclude each other; send two messages",
                                                     kNames[*action], kNames[key]));
                }
                action = key;
        }
        return action;
}

std::expected<Request, Refusal> judge_match(const Fields& fields) {
        if (!fields.has(kProtocol) || !fields.has(kAddress) || !fields.has(kPort)) {
                return malformed("VERB=match needs PROTOCOL=, ADDRESS= and PORT=, where a socket is to be bound");
        }
        Request request{.verb = Verb::kMatch, .pid = fields.pid};
        request.bind = {.protocol = fields.protocol, .at = {.address = fields.address, .port = fields.port}};
        if (fields.has(kFdName)) {
                request.bind.services = split_names(*fields.values[kFdName]);
        }
        return request;
}

std::expected<Request, Refusal> judge_explain(const Fields& fields) {
        if (!fields.has(kProtocol) || !fields.has(kAddress) || !fields.has(kPort)) {
                return malformed("VERB=explain needs PROTOCOL=, ADDRESS= and PORT=, where the packet goes");
        }
        if (fields.has(kFrom) && fields.from.address.family != fields.address.family) {
                return malformed("FROM= and ADDRESS= are of two families, a packet has one");
        }
        Request request{.verb = Verb::kExplain};
        request.bind = {.protocol = fields.protocol, .at = {.address = fields.address, .port = fields.port}};
        if (fields.has(kFrom)) {
                request.client.from = fields.from;
        }
        request.client.interface = fields.values[kInterface].value_or("");
        return request;
}

std::expected<Request, Refusal> judge_verb(const Fields& fields, std::size_t fds) {
        const auto name = fields.values[kVerbKey].value_or("");
        if (fds != 0) {
                return malformed(fmt::format("VERB={} takes no descriptors, {} came", name, fds));
        }
        if (fields.verb == Verb::kUnregister && !fields.has(kFdName)) {
                return malformed("VERB=unregister needs FDNAME=, the service whose sockets to remove");
        }
        const bool drains = fields.verb == Verb::kDrain || fields.verb == Verb::kUndrain;
        if (drains && !fields.has(kFdName)) {
                return malformed(fmt::format("VERB={} needs FDNAME=, the service", name));
        }
        if (fields.verb == Verb::kHold && !(fields.has(kFdName) && fields.has(kTimeout))) {
                return malformed("VERB=hold needs FDNAME=, the service, and TIMEOUT_USEC=, how long");
        }
        if (fields.verb == Verb::kMatch) {
                return judge_match(fields);
        }
        if (fields.verb == Verb::kExplain && !fields.has(kFdName)) {
                return judge_explain(fields);
        }
        if (fields.verb != Verb::kUnregister && fields.verb != Verb::kHold && fields.verb != Verb::kPrepare &&
            !drains && fields.has(kFdName)) {
                return malformed(
                        fmt::format("VERB={} takes no FDNAME=, of the verbs only unregister, hold, drain, undrain, "
                                    "match and prepare do",
                                    name));
        }
        return Request{fields.verb, fields.service(), fields.timeout_usec, fields.pid};
}

// Keys that only some requests have.
std::expected<void, Refusal> judge_companions(const Fields& fields, std::optional<Key> action) {
        if (fields.has(kFdPoll) && action != kFdStore) {
                return malformed("FDPOLL=0 needs FDSTORE=1 beside it");
        }
        if (fields.has(kTimeout) && fields.verb != Verb::kHold && fields.verb != Verb::kReload) {
                return malformed("TIMEOUT_USEC= needs VERB=hold or VERB=reload beside it");
        }
        if (fields.has(kMigrate) && action != kFdStore) {
                return malformed("MIGRATE=1 needs FDSTORE=1 beside it");
        }
        if (fields.has(kPid) && action != kFdStore && action != kFdRetrieve && fields.verb != Verb::kMatch &&
            fields.verb != Verb::kPrepare) {
                return malformed("PID= needs FDSTORE=1, FDRETRIEVE=1, VERB=match or VERB=prepare beside it");
        }
        for (const Key key : {kProtocol, kAddress, kPort}) {
                if (fields.has(key) && fields.verb != Verb::kMatch && fields.verb != Verb::kExplain) {
                        return malformed(fmt::format("{}= needs VERB=match or VERB=explain beside it", kNames[key]));
                }
        }
        for (const Key key : {kFrom, kInterface}) {
                if (fields.has(key) && fields.verb != Verb::kExplain) {
                        return malformed(fmt::format("{}= needs VERB=explain beside it", kNames[key]));
                }
        }
        const auto name = fields.values[kFdName].value_or("");
        if (fields.verb != Verb::kMatch && name.find(':') != std::string_view::npos) {
                return no_service_name(name);
        }
        return {};
}

std::expected<Request, Refusal> judge(Channel channel, const Fields& fields, std::size_t fds) {
        if (fields.has(kBarrierKey)) {
                return judge_barrier(fields, fds);
        }
        const auto found = find_action(fields);
        if (!found) {
                return std::unexpected(found.error());
        }
        const std::optional<Key> action = *found;
        if (auto fit = judge_companions(fields, action); !fit) {
                return std::unexpected(fit.error());
        }
        if (!action) {
                if (fields.has(kFdName)) {
                        return malformed(channel == Channel::kNotify
                                                 ? "FDNAME= needs FDSTORE=1 or FDSTOREREMOVE=1 beside it"
                                                 : "FDNAME= needs FDSTORE=1, FDSTOREREMOVE=1, FDRETRIEVE=1 or "
                                                   "VERB=unregister beside it");
                }
                if (fds != 0) {
                        return malformed(
                                fmt::format("{} descriptors came without FDSTORE=1 or BARRIER=1, and were closed; "
                                            "FDSTORE=1 hands sockets over",
                                            fds));
                }
                if (channel == Channel::kControl) {
                        return malformed(
                                "the request is empty; it needs FDSTORE=1, FDSTOREREMOVE=1, FDRETRIEVE=1, "
                                "BARRIER=1 or VERB=");
                }
                return Request{};
        }
        if (*action == kVerbKey) {
                return judge_verb(fields, fds);
        }
        if (*action == kFdStore) {
                if (fds == 0) {
                        return malformed(
                                "FDSTORE=1 came without a descriptor; send the socket with it as SCM_RIGHTS "
                                "(sd_pid_notify_with_fds(), systemd-notify --fd=)");
                }
                return Request{.verb = Verb::kStore,
                               .service = fields.service(),
                               .pid = fields.pid,
                               .migrate = fields.has(kMigrate)};
        }
        if (fds != 0) {
                return malformed(fmt::format("{}=1 takes no descriptors, {} came", kNames[*action], fds));
        }
        return Request{.verb = *action == kFdStoreRemove ? Verb::kRemove : Verb::kRetrieve,
                       .service = fields.service(),
                       .pid = fields.pid};
}

}  // namespace

bool valid_service_name(std::string_view name) {
        if (name.empty() || name.size() > kMaxServiceName) {
                return false;
        }
        for (const char c : name) {
                const bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                                  c == '.' || c == '_' || c == '-';
                if (!good) {
                        return false;
                }
        }
        return true;
}

namespace {

std::string one_line(std::string_view text) {
        std::string clean(text);
        for (char& c : clean) {
                if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
                        c = ' ';
                }
        }
        return clean;
}

}  // namespace

Refusal refuse_truncated() {
        return {ResultCode::kMalformed,
                fmt::format("the message did not arrive whole and was dropped: at most {} bytes and {} descriptors are "
                            "taken, and none while the broker has no free descriptor",
                            kMaxMessageBytes, kMaxMessageFds),
                {}};
}

std::expected<Request, Refusal> parse_request(Channel channel, std::string_view text, std::size_t fds) {
        if (text.size() > kMaxMessageBytes || fds > kMaxMessageFds) {
                return std::unexpected(refuse_truncated());
        }
        if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
                return malformed(
                        fmt::format("the text holds a NUL byte at offset {}; send the text without its "
                                    "terminating NUL",
                                    nul));
        }
        const auto fields = read_lines(channel, text);
        if (!fields) {
                return std::unexpected(fields.error());
        }
        return judge(channel, *fields, fds);
}

std::string format_request(const Request& request) {
        std::string text;
        switch (request.verb) {
        case Verb::kNothing:
                break;
        case Verb::kStore:
                text = "FDSTORE=1\n";
                break;
        case Verb::kRemove:
                text = "FDSTOREREMOVE=1\n";
                break;
        case Verb::kRetrieve:
                text = "FDRETRIEVE=1\n";
                break;
        case Verb::kBarrier:
                text = "BARRIER=1\n";
                break;
        default:
                for (const auto& entry : kVerbs) {
                        if (entry.verb == request.verb) {
                                text = fmt::format("VERB={}\n", entry.name);
                        }
                }
        }
        if (!request.service.empty()) {
                text += fmt::format("FDNAME={}\n", request.service);
        }
        if (request.verb == Verb::kHold || (request.verb == Verb::kReload && request.timeout_usec != 0)) {
                text += fmt::format("TIMEOUT_USEC={}\n", request.timeout_usec);
        }
        if (request.verb == Verb::kMatch || request.verb == Verb::kExplain) {
                const auto& bind = request.bind;
                text += fmt::format("PROTOCOL={}\nADDRESS={}\nPORT={}\n", to_string(bind.protocol),
                                    bind.at.address.to_string(), bind.at.port);
                if (!bind.services.empty()) {
                        text += fmt::format("FDNAME={}\n", fmt::join(bind.services, ":"));
                }
        }
        if (request.client.from) {
                text += fmt::format("FROM={}\n", request.client.from->to_string());
        }
        if (!request.client.interface.empty()) {
                text += fmt::format("INTERFACE={}\n", request.client.interface);
        }
        if (request.pid != 0) {
                text += fmt::format("PID={}\n", request.pid);
        }
        if (request.migrate) {
                text += "MIGRATE=1\n";
        }
        return text;
}

std::string format_result(ResultCode code, std::string_view message, const std::vector<std::string>& warnings) {
        auto record =
                fmt::format("RESULT={}\nERRNO={}\nMESSAGE={}\n", to_string(code), to_errno(code), one_line(message));
        for (const auto& warning : warnings) {
                record += fmt::format("WARNING={}\n", one_line(warning));
        }
        return record;
}

}  // namespace sockbroker
