// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb explain: what happens to a packet, and why. The broker says what dispatch does; that a packet comes there at
// all, and who else may have a say, is asked of the kernel here.
#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "broker/base/printable.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/netns.h"
#include "broker/ctl/render.h"
#include "broker/ctl/route.h"
#include "broker/ctl/verbs.h"
#include "broker/dataplane/kernel/attached.h"
#include "broker/policy/host_warnings.h"
#include "broker/protocol/request.h"

namespace sockbroker::ctl {

namespace {

constexpr auto kAgain = std::chrono::milliseconds(50);

Result<Request> request_of(const Options& options) {
        const auto protocol = parse_protocol(options.arguments[0]);
        if (!protocol) {
                return fail(fmt::format("\"{}\" is no protocol, write tcp or udp", printable(options.arguments[0])));
        }
        std::string_view text = options.arguments[1];
        if (text.starts_with('[') && text.ends_with(']')) {
                text = text.substr(1, text.size() - 2);
        }
        const auto address = parse_address(text);
        if (!address) {
                return fail(fmt::format("\"{}\" is no address; a v4-mapped one is asked as the IPv4 one",
                                        printable(options.arguments[1])));
        }
        if (std::ranges::all_of(address->bytes, [](auto byte) { return byte == 0; })) {
                return fail(fmt::format("\"{}\" is the one address that no packet has, give one that clients ask",
                                        address->to_string()));
        }
        const auto port = parse_number(options.arguments[2], 65535);
        if (!port || *port == 0) {
                return fail(fmt::format("\"{}\" is no port from 1 to 65535", printable(options.arguments[2])));
        }
        Request request{.verb = sockbroker::Verb::kExplain};
        request.bind = {.protocol = *protocol,
                        .at = {.address = *address, .port = static_cast<std::uint16_t>(*port)},
                        .services = {}};
        if (!options.from.empty()) {
                const auto from = parse_endpoint(options.from);
                if (!from) {
                        return fail(fmt::format("--from: {}", from.error().text()));
                }
                if (from->address.family != address->family) {
                        return fail("--from is of another family than the address that is asked");
                }
                request.client.from = *from;
        }
        request.client.interface = options.interface;
        return request;
}

// " (ip route add ...)" for the whole prefix of the binding that would decide; empty: there is none, or it is the whole
// Internet, which nobody wants local.
std::string route_hint(const Options& options, const Json& row) {
        const auto binding = row.find("binding");
        const auto text = binding != row.end() && binding->is_object() ? cell(*binding, "prefix", "") : "";
        const auto prefix = parse_prefix(text);
        const unsigned least = prefix && prefix->address.family == Family::kIpv4 ? 8 : 16;
        return prefix && prefix->length >= least ? fmt::format(" ({})", local_route_command(options.netns, text)) : "";
}

void add_note(Json& row, const std::string& note) {
        row["notes"].push_back(note);
}

// What dispatch does not see: whether packets come to it, and who chooses after it.
void look_around(const Options& options, const Request& request, Json& row) {
        if (!enter_netns_of_broker(options.netns, cell(row, "netns"))) {
                add_note(row, "routes were not looked at: this runs in another network namespace than the broker");
                return;
        }
        if (const auto& name = request.client.interface; !name.empty() && if_nametoindex(name.c_str()) == 0) {
                add_note(row,
                         fmt::format("there is no interface {} here, so that no Interface= matched", printable(name)));
        }
        const auto route = route_to(request.bind.at.address);
        if (!route) {
                add_note(row, "routes were not looked at: " + route.error().text());
        } else if (!route->local) {
                const auto address = request.bind.at.address.to_string();
                row["reason"] =
                        route->never
                                ? fmt::format("{} never comes to dispatch, {}", address, route->why_not)
                                : fmt::format("{} is no local address, {}: dispatch is not asked{}; if it were: {}",
                                              address, route->why_not, route_hint(options, row), cell(row, "reason"));
                row["verdict"] = "not-local";
                row["cookie"] = nullptr;
                row["socket"] = nullptr;
        }
        // Only root may know; to others it says nothing.
        const auto others = other_programs(options.bpffs + "/dispatch");
        for (const auto& other : others.value_or(std::vector<OtherProgram>{})) {
                add_note(row, fmt::format("sk_lookup program {} (id {}) is attached {} this one and {}",
                                          printable(other.name), other.id, other.before ? "before" : "after",
                                          other.before ? "decides where this one passes"
                                                       : "has the last word: it may choose another socket"));
        }
}

std::string describe_binding(const Json& binding) {
        std::string text =
                fmt::format("{}:{} ({} {} port {}", cell(binding, "file"), cell(binding, "line"),
                            cell(binding, "protocol"), cell(binding, "prefix", "any"), cell(binding, "ports", "*"));
        if (const auto source = cell(binding, "source", ""); !source.empty()) {
                text += " from " + source;
        }
        if (const auto interface = cell(binding, "interface", ""); !interface.empty()) {
                text += " on " + interface;
        }
        return text + ")";
}

std::string describe(const Request& request, const Json& row, bool colour) {
        const auto verdict = cell(row, "verdict");
        const std::string_view paint = !colour ? "" : verdict == "socket" ? "\x1b[1;32m" : "\x1b[1;33m";
        std::string text = fmt::format("{} {}: {}{}{}\n", to_string(request.bind.protocol), request.bind.at.to_string(),
                                       paint, verdict, colour ? "\x1b[0m" : "");
        const auto line = [&](std::string_view name, std::string_view value) {
                text += fmt::format("{:>8}: {}\n", name, value);
        };
        line("Reason", cell(row, "reason"));
        if (const auto service = cell(row, "service", ""); !service.empty()) {
                line("Service", service);
        }
        if (const auto at = row.find("binding"); at != row.end() && at->is_object()) {
                line("Binding", describe_binding(*at));
        }
        if (const auto at = row.find("socket"); at != row.end() && at->is_object()) {
                line("Socket",
                     fmt::format("{}, {}, cookie {}", cell(*at, "bound"), cell(*at, "state"), cell(*at, "cookie")));
                line("Owner", fmt::format("{}, pid {}, uid {}", cell(*at, "unit", "no unit"), cell(*at, "pid"),
                                          cell(*at, "uid")));
        }
        if (const auto next = row.find("next"); next != row.end() && next->is_array()) {
                for (const auto& binding : *next) {
                        line("Next", fmt::format("{}, {}", cell(binding, "service"), describe_binding(binding)));
                }
        }
        if (const auto notes = row.find("notes"); notes != row.end() && notes->is_array()) {
                for (const auto& note : *notes) {
                        line("Note", note.is_string() ? printable(note.get<std::string>()) : note.dump());
                }
        }
        return text;
}

}  // namespace

int explain_packet(const Options& options) {
        const auto request = request_of(options);
        if (!request) {
                complain(request.error().text());
                return kExitUsage;
        }
        auto client = connect(options);
        if (!client) {
                return client.error();
        }
        std::optional<Json> row;
        auto left = options.timeout == kForever ? kShortTimeout : options.timeout;
        for (;;) {
                const auto answer = ask(*client, format_request(*request), {},
                                        [&](std::string_view line) { row = parse_row(line); });
                if (!answer) {
                        return answer.error();
                }
                if (answer->result == "busy" && left > kAgain) {  // a policy is on its way into the kernel
                        std::this_thread::sleep_for(kAgain);
                        left -= kAgain;
                        continue;
                }
                if (answer->result != "ok") {
                        return report_refusal(*answer);
                }
                break;
        }
        if (!row) {
                complain("the broker's answer is not what this tool knows, are tool and broker of one version?");
                return kExitFailed;
        }
        look_around(options, *request, *row);
        row->erase("netns");
        Output output(options);
        output.write(options.json != JsonMode::kOff ? dump(*row, options.json)
                                                    : describe(*request, *row, output.colour()));
        return output.finish(kExitOk);
}

}  // namespace sockbroker::ctl
