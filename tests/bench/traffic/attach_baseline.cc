// SPDX-License-Identifier: LGPL-2.1-or-later
//
// attach_baseline two-lpm|floor tcp|udp PREFIX BINDINGS FD: attaches a baseline program to the caller's network
// namespace, with the /16 (IPv6: /112) of the prefix as one binding or as 65,536 of hosts, for port 443 and the
// inherited socket FD. Says "ready" and lets go when its standard input ends.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/bench/baselines.h"
#include "tests/bench/workload.h"

namespace sockbroker::bench {
namespace {

[[noreturn]] void die(const std::string& why) {
        fmt::print(stderr, "attach_baseline: {}\n", why);
        std::exit(1);
}

std::vector<Rule> make_rules(Protocol protocol, const std::string& prefix, bool hosts) {
        Address base{.family = prefix.find(':') == std::string::npos ? Family::kIpv4 : Family::kIpv6};
        const bool v4 = base.family == Family::kIpv4;
        if (inet_pton(v4 ? AF_INET : AF_INET6, prefix.c_str(), base.bytes.data()) != 1) {
                die("no address: " + prefix);
        }
        const unsigned bits = address_bits(base.family);
        std::vector<Rule> rules;
        for (unsigned host = 0; host < (hosts ? 65536U : 1U); host++) {
                Rule rule{.protocol = protocol,
                          .prefix = {base, static_cast<std::uint8_t>(hosts ? bits : bits - 16)},
                          .ports = {443, 443},
                          .service = 1};
                rule.prefix.address.bytes[bits / 8 - 2] = static_cast<std::uint8_t>(host >> 8);
                rule.prefix.address.bytes[bits / 8 - 1] = static_cast<std::uint8_t>(host);
                rules.push_back(rule);
        }
        return rules;
}

}  // namespace
}  // namespace sockbroker::bench

int main(int argc, char** argv) {
        using namespace sockbroker;
        if (argc != 6) {
                fmt::print(stderr, "usage: attach_baseline two-lpm|floor tcp|udp PREFIX BINDINGS FD\n");
                return 2;
        }
        const bool tcp = std::strcmp(argv[2], "tcp") == 0;
        const auto rules =
                bench::make_rules(tcp ? Protocol::kTcp : Protocol::kUdp, argv[3], std::strcmp(argv[4], "1") != 0);
        std::vector<OwnedFd> sockets;  // 0: the floor's, 1: the service's
        for (int i = 0; i < 2; i++) {
                sockets.emplace_back(fcntl(std::atoi(argv[5]), F_DUPFD_CLOEXEC, 3));
        }
        const auto baselines = bench::Baselines::load(rules, sockets);
        if (!baselines) {
                bench::die(baselines.error().text());
        }
        sockets.clear();
        const OwnedFd netns(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
        const bool floor = std::strcmp(argv[1], "floor") == 0;
        const OwnedFd link(bpf_link_create(floor ? (*baselines)->floor() : (*baselines)->two_lpm(), netns.get(),
                                           BPF_SK_LOOKUP, nullptr));
        if (!link) {
                bench::die(fmt::format("cannot attach the program: {}", std::strerror(errno)));
        }
        fmt::print("ready\n");
        std::fflush(stdout);
        char byte = 0;
        while (read(STDIN_FILENO, &byte, 1) > 0) {
        }
        return 0;
}
