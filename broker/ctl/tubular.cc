// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See tubular.h. There a binding of the very port goes before one of any port (0), however long their prefixes are;
// here the longest prefix decides first. So where a binding of any port lies inside a shorter one of a port, the
// latter's service gets that port of the longer prefix too.
#include "broker/ctl/tubular.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/ctl/render.h"
#include "broker/policy/values.h"
#include "broker/protocol/service_name.h"

namespace sockbroker::ctl {

namespace {

using Key = std::pair<Prefix, std::uint16_t>;  // the port, 0: any
using Bindings = std::map<Key, std::string>;   // to the label

std::unexpected<Error> wrong(std::size_t number, const std::string& what) {
        return fail(fmt::format("binding {}: {}", number, what));
}

Result<Prefix> prefix_of(const std::string& text) {
        const auto slash = text.find('/');
        const auto address = parse_address(text.substr(0, slash));
        if (!address) {
                return fail(fmt::format("\"{}\" is no prefix (v4-mapped ones are written as IPv4)", text));
        }
        const auto bits = address_bits(address->family);
        const auto length = slash == std::string::npos ? std::optional<std::uint64_t>(bits)
                                                       : parse_number(std::string_view(text).substr(slash + 1), bits);
        if (!length) {
                return fail(fmt::format("\"{}\" has no length of at most {}", text, bits));
        }
        // tubular takes host bits, and clears them.
        return Prefix{.address = masked(*address, static_cast<unsigned>(*length)),
                      .length = static_cast<std::uint8_t>(*length)};
}

// As the policy has it.
std::string written(const Prefix& prefix, std::uint16_t port) {
        const bool ipv6 = prefix.address.family == Family::kIpv6;
        return fmt::format("{}{}{}/{}:{}", ipv6 ? "[" : "", prefix.address.to_string(), ipv6 ? "]" : "", prefix.length,
                           port == 0 ? "*" : std::to_string(port));
}

Result<Bindings> bindings_of(std::string_view text) {
        const Json whole = Json::parse(text, nullptr, false);
        if (whole.is_discarded() || !whole.is_object() || !whole.contains("bindings") ||
            !whole["bindings"].is_array() || whole.size() != 1) {
                return fail(
                        "this is no file of bindings for tubular's tubectl load-bindings: {\"bindings\": [{\"label\": "
                        "\"web\", \"prefix\": \"192.0.2.0/24\", \"port\": 80}]}");
        }
        Bindings bindings;
        std::size_t number = 0;
        for (const auto& one : whole["bindings"]) {
                number++;
                if (!one.is_object() || one.size() != 3 || !one.contains("label") || !one["label"].is_string() ||
                    !one.contains("prefix") || !one["prefix"].is_string() || !one.contains("port") ||
                    !one["port"].is_number_unsigned() || one["port"].get<std::uint64_t>() > 65535) {
                        return wrong(number, "it needs label, prefix and port (0 to 65535), and nothing else");
                }
                const auto label = one["label"].get<std::string>();
                if (!valid_service_name(label)) {
                        return wrong(number, fmt::format("the label \"{}\" cannot be the name of a service, which is 1 "
                                                         "to {} of A-Z a-z 0-9 . _ -: rename it",
                                                         label, kMaxServiceName));
                }
                const auto prefix = prefix_of(one["prefix"].get<std::string>());
                if (!prefix) {
                        return wrong(number, prefix.error().text());
                }
                const auto port = static_cast<std::uint16_t>(one["port"].get<std::uint64_t>());
                // There 0.0.0.0 and multicast are bindings that no packet ever meets, here they are mistakes.
                if (const auto taken = parse_listen(written(*prefix, port)); !taken) {
                        return wrong(number, taken.error().text());
                }
                const auto [at, fresh] = bindings.try_emplace({*prefix, port}, label);
                if (!fresh && at->second != label) {
                        return wrong(number, fmt::format("{} with port {} is bound to {} already", prefix->to_string(),
                                                         port, at->second));
                }
        }
        return bindings;
}

// For each of any port the ports of shorter prefixes around it.
void keep_ports_first(Bindings& bindings) {
        Bindings added;
        std::set<std::uint16_t> ports;
        for (const auto& [key, label] : bindings) {
                ports.insert(key.second);
        }
        ports.erase(0);
        for (const auto& [key, label] : bindings) {
                const auto& [prefix, any] = key;
                if (any != 0) {
                        continue;
                }
                for (const auto port : ports) {
                        for (int length = prefix.length; length >= 0; length--) {
                                const Prefix around{.address = masked(prefix.address, static_cast<unsigned>(length)),
                                                    .length = static_cast<std::uint8_t>(length)};
                                const auto found = bindings.find({around, port});
                                if (found != bindings.end()) {
                                        if (length < prefix.length && found->second != label) {
                                                added.try_emplace({prefix, port}, found->second);
                                        }
                                        break;
                                }
                        }
                }
        }
        bindings.merge(added);
}

}  // namespace

Result<std::string> policy_of_tubular(std::string_view json) {
        auto bindings = bindings_of(json);
        if (!bindings) {
                return std::unexpected(bindings.error());
        }
        keep_ports_first(*bindings);
        std::map<std::string, std::string> sections;
        for (const auto& [key, label] : *bindings) {
                const auto& [prefix, port] = key;
                sections[label] += fmt::format("ListenStream={0}\nListenDatagram={0}\n", written(prefix, port));
        }
        std::string text =
                "# From tubular's bindings by sockbrokerctl import. There whoever could open its state could "
                "register;\n"
                "# here each service names its units or users: until then it admits nobody.\n";
        for (const auto& [label, lines] : sections) {
                text += fmt::format("\n[Service {0}]\n#Unit={0}.service\n{1}", label, lines);
        }
        return text;
}

}  // namespace sockbroker::ctl
