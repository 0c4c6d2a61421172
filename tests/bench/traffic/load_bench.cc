// SPDX-License-Identifier: LGPL-2.1-or-later
//
// load_bench PINS BINDINGS REPEATS: what a reload consists of, each part timed by itself: text to policy; policy to
// bytes; the same again with the writing to the kernel and the grace period; and the map updates of two-LPM for the
// same bindings. Host prefixes of IPv4, half for one port, half for any, in random order. PINS is a directory on a
// bpffs of the caller's; the caller's network namespace is dispatched in. Prints one JSON object.
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "broker/dataplane/compile/compile.h"
#include "broker/dataplane/dataplane.h"
#include "broker/policy/parse.h"
#include "tests/bench/baselines.h"
#include "tests/bench/workload.h"

namespace sockbroker::bench {
namespace {

[[noreturn]] void die(const std::string& why) {
        fmt::print(stderr, "load_bench: {}\n", why);
        std::exit(1);
}

double seconds(const std::function<void()>& what) {
        const auto begin = std::chrono::steady_clock::now();
        what();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
        std::sort(values.begin(), values.end());
        return values[values.size() / 2];
}

std::string write_policy(const Workload& load) {
        std::string text = "[Service s1]\nUser=61001\n";
        for (const Rule& rule : load.rules()) {
                text += fmt::format("ListenDatagram={}:{}\n", rule.prefix.to_string(), rule.ports.to_string());
        }
        return text;
}

std::vector<Rule> rules_of_one(const Policy& policy, ServiceId id) {
        std::vector<Rule> rules;
        for (const Binding& binding : policy.services.front().bindings) {
                rules.push_back({.protocol = binding.protocol,
                                 .prefix = binding.prefix,
                                 .ports = binding.ports,
                                 .service = id});
        }
        return rules;
}

int main(const std::string& pins, std::uint32_t bindings, unsigned repeats) {
        const Workload load({.lengths = Lengths::kHosts, .bindings = bindings});
        const std::vector<PolicyFile> files{{"bench.conf", write_policy(load)}};
        const auto dataplane = Dataplane::open(pins, {.bindings = std::max(bindings, 65536U)});
        if (!dataplane) {
                die(dataplane.error().text());
        }
        const auto service = (*dataplane)->add_service("s1");
        const OwnedFd one(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const sockaddr_in loopback{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        if (!service || bind(one.get(), reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback) != 0) {
                die("cannot make a service with a socket");
        }
        std::vector<sb_line> room(lines_for((*dataplane)->capacity().bindings));
        std::array<sb_table, 4> tables;
        std::vector<double> parses, compiles, wholes, updates;
        for (unsigned i = 0; i < repeats; i++) {
                ParsedPolicy parsed;
                parses.push_back(seconds([&] { parsed = parse_policy(files, {.max_bindings = bindings}); }));
                if (!parsed.policy) {
                        die("the policy is refused: " + parsed.diagnostics.front().to_string());
                }
                const auto rules = rules_of_one(*parsed.policy, *service);
                compiles.push_back(seconds([&] {
                        if (!compile_into(rules, room, tables)) {
                                die("the rules do not compile");
                        }
                }));
                wholes.push_back(seconds([&] {
                        if (const auto done = (*dataplane)->set_rules(rules); !done) {
                                die(done.error().text());
                        }
                }));
                std::vector<OwnedFd> sockets;
                sockets.emplace_back(dup(one.get()));
                sockets.emplace_back(dup(one.get()));
                const auto two_lpm = Baselines::load(load.rules(), sockets);
                if (!two_lpm) {
                        die(two_lpm.error().text());
                }
                updates.push_back((*two_lpm)->update_seconds());
        }
        const nlohmann::ordered_json result{{"bindings", bindings},
                                            {"parse_s", median(parses)},
                                            {"compile_s", median(compiles)},
                                            {"compile_and_write_s", median(wholes)},
                                            {"two_lpm_updates_s", median(updates)}};
        fmt::print("{}\n", result.dump());
        if (const auto done = Dataplane::unload(pins); !done) {
                die(done.error().text());
        }
        return 0;
}

}  // namespace
}  // namespace sockbroker::bench

int main(int argc, char** argv) {
        if (argc != 4) {
                fmt::print(stderr, "usage: load_bench PINS BINDINGS REPEATS\n");
                return 2;
        }
        return sockbroker::bench::main(argv[1], static_cast<std::uint32_t>(std::atoi(argv[2])),
                                       static_cast<unsigned>(std::max(1, std::atoi(argv[3]))));
}
