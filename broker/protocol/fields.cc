// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One pass over the lines. A key that is not known is an error on the control socket, and not looked at on the notify
// socket, whose other keys are for systemd.
#include "broker/protocol/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/protocol/request.h"  // kMaxHoldUsec
#include "broker/protocol/service_name.h"

namespace sockbroker {
namespace {

constexpr std::array<std::string_view, kKeys> kNames = {
        "FDSTORE",  "FDSTOREREMOVE", "FDRETRIEVE", "FDNAME",  "FDPOLL",  "BARRIER", "VERB", "TIMEOUT_USEC", "PID",
        "PROTOCOL", "ADDRESS",       "PORT",       "MIGRATE", "INHERIT", "FAMILY",  "FROM", "INTERFACE"};

constexpr std::size_t kMaxInterfaceName = 15;              // IFNAMSIZ less the terminator
constexpr std::uint64_t kMaxPid = std::uint64_t{1} << 22;  // PID_MAX_LIMIT of the kernel

bool is_known(Channel channel, std::size_t key) {
        return channel == Channel::kControl || (key != kFdRetrieve && key < kVerbKey);
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

std::optional<Family> parse_family(std::string_view value) {
        for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                if (value == to_string(family)) {
                        return family;
                }
        }
        return std::nullopt;
}

std::optional<std::uint64_t> parse_positive(std::string_view value, std::uint64_t most) {
        const auto number = parse_number(value, most);
        return number && *number != 0 ? number : std::nullopt;
}

// What was parsed, or the refusal: KEY="value" and why not.
template <class Field, class Parsed>
std::expected<void, Refusal> keep(Field& field, const Parsed& parsed, Key key, std::string_view value,
                                  std::string_view why_not) {
        if (!parsed) {
                return malformed(fmt::format("{}={} {}", kNames[key], quoted(value), why_not));
        }
        field = static_cast<Field>(*parsed);
        return {};
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
        case kPid:
                return keep(fields.pid, parse_positive(value, kMaxPid), key, value, "is no number of a process");
        case kProtocol:
                return keep(fields.protocol, parse_protocol(value), key, value, "is not taken, it is tcp or udp");
        case kAddress:
                return keep(fields.address, parse_address(value), key, value,
                            "is no address; IPv6 stands without brackets, and a v4-mapped address is asked as the IPv4 "
                            "one");
        case kPort:
                return keep(fields.port, parse_positive(value, 65535), key, value, "is no port from 1 to 65535");
        case kFamily:
                return keep(fields.family, parse_family(value), key, value, "is not taken, it is ipv4 or ipv6");
        case kFrom:
                return keep(fields.from, parse_endpoint(value), key, value, "is not ADDRESS:PORT, IPv6 in brackets");
        case kInterface:
                if (value.empty() || value.size() > kMaxInterfaceName) {
                        return malformed(fmt::format("INTERFACE={} is no name of an interface, of 1 to {} bytes",
                                                     quoted(value), kMaxInterfaceName));
                }
                return {};
        case kVerbKey: {
                const auto verb = find_verb(value);
                if (!verb) {
                        return malformed(
                                fmt::format("unknown verb {}; VERB= is one of {}", quoted(value), verb_names()));
                }
                fields.verb = *verb;
                return {};
        }
        case kTimeout:
                return keep(fields.timeout_usec, parse_number(value, kMaxHoldUsec), key, value,
                            "is no number of microseconds, 12 hours at most");
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
                        return malformed(fmt::format("unknown key {}; the control socket knows {}", quoted(name),
                                                     fmt::join(kNames, " ")));
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

}  // namespace

std::string_view key_name(Key key) {
        return kNames[key];
}

std::unexpected<Refusal> malformed(std::string message) {
        return std::unexpected(Refusal{ResultCode::kMalformed, std::move(message), {}});
}

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

std::unexpected<Refusal> no_service_name(std::string_view value) {
        return malformed(fmt::format("FDNAME={} is not a service name; a name is 1 to {} of A-Z a-z 0-9 . _ -",
                                     quoted(value), kMaxServiceName));
}

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

std::expected<Fields, Refusal> read_fields(Channel channel, std::string_view text) {
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

}  // namespace sockbroker
