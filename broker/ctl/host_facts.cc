// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/host_facts.h"

#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-login.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>

#include "broker/client/netlink_dump.h"
#include "broker/client/queues.h"
#include "broker/ctl/ask.h"
#include "broker/ctl/netns.h"
#include "broker/ctl/render.h"
#include "broker/ctl/silent_files.h"
#include "broker/ctl/units.h"
#include "broker/policy/files.h"
#include "broker/policy/findings.h"
#include "broker/policy/read_files.h"

namespace sockbroker::ctl {

namespace {

constexpr std::size_t kMaxListeners = 10'000;
constexpr std::size_t kMaxQuickBytes = std::size_t{4} << 20;  // of policies, some 100,000 bindings

struct FoundListener {
        HostListener listener;
        std::uint64_t inode = 0;
        std::uint64_t cookie = 0;
};

Address address_of(int family, const void* bytes) {
        Address address{.family = family == AF_INET ? Family::kIpv4 : Family::kIpv6};
        std::memcpy(address.bytes.data(), bytes, family == AF_INET ? 4 : 16);
        return address;
}

std::optional<std::vector<FoundListener>> listeners() {
        std::vector<FoundListener> all;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const int family : {AF_INET, AF_INET6}) {
                        const auto read = dump_sockets(
                                protocol, family, [&](const inet_diag_msg& socket, std::span<const char> attributes) {
                                        if (all.size() >= kMaxListeners || socket.id.idiag_sport == 0) {
                                                return;
                                        }
                                        const auto only = netlink_attribute(attributes, INET_DIAG_SKV6ONLY);
                                        const HostListener listener = {
                                                .protocol = protocol,
                                                .bound = {.address = address_of(family, socket.id.idiag_src),
                                                          .port = ntohs(socket.id.idiag_sport)},
                                                .dual = family == AF_INET6 && only && !only->empty() &&
                                                        only->front() == 0,
                                                .uid = socket.idiag_uid};
                                        const auto cookie = std::uint64_t{socket.id.idiag_cookie[1]} << 32U |
                                                            socket.id.idiag_cookie[0];
                                        all.push_back({listener, socket.idiag_inode, cookie});
                                });
                        if (!read && family == AF_INET) {
                                return std::nullopt;
                        }
                }
        }
        return all;
}

// Of each inode of a socket the units of the processes that have it open, as far as this process may look.
std::map<std::uint64_t, std::set<std::string>> units_of(const std::vector<FoundListener>& found) {
        std::map<std::uint64_t, std::set<std::string>> units;
        for (const auto& one : found) {
                units[one.inode];
        }
        using Dir = std::unique_ptr<DIR, int (*)(DIR*)>;
        const Dir processes(::opendir("/proc"), ::closedir);
        for (const dirent* entry = nullptr; processes && (entry = ::readdir(processes.get())) != nullptr;) {
                const pid_t pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
                const Dir fds(pid > 0 ? ::opendir(fmt::format("/proc/{}/fd", pid).c_str()) : nullptr, ::closedir);
                const int directory = fds ? ::dirfd(fds.get()) : -1;
                for (const dirent* fd = nullptr; directory >= 0 && (fd = ::readdir(fds.get())) != nullptr;) {
                        std::array<char, 64> target{};
                        if (::readlinkat(directory, fd->d_name, target.data(), target.size() - 1) <= 0 ||
                            std::strncmp(target.data(), "socket:[", 8) != 0) {
                                continue;
                        }
                        const auto at = units.find(std::strtoull(target.data() + 8, nullptr, 10));
                        char* name = nullptr;
                        // PID 1 has the sockets of .socket units, and is in none of them.
                        if (at == units.end() || pid == 1 || ::sd_pid_get_unit(pid, &name) < 0) {
                                continue;
                        }
                        const std::unique_ptr<char, decltype(&std::free)> owned(name, std::free);
                        at->second.insert(name);
                }
        }
        return units;
}

std::vector<Address> addresses_in_use() {
        std::vector<Address> addresses;
        ifaddrs* raw = nullptr;
        if (::getifaddrs(&raw) != 0) {
                return addresses;
        }
        const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> all(raw, ::freeifaddrs);
        for (const ifaddrs* one = all.get(); one != nullptr; one = one->ifa_next) {
                // A dummy interface carries what is served, and nobody asks from it.
                const bool dummy = (one->ifa_flags & IFF_NOARP) != 0 && (one->ifa_flags & IFF_POINTOPOINT) == 0;
                if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_LOOPBACK) != 0 || dummy) {
                        continue;
                }
                if (one->ifa_addr->sa_family == AF_INET) {
                        addresses.push_back(
                                address_of(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr));
                } else if (one->ifa_addr->sa_family == AF_INET6) {
                        addresses.push_back(
                                address_of(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr));
                }
        }
        return addresses;
}

std::optional<std::vector<Prefix>> local_prefixes() {
        struct {
                nlmsghdr header;
                rtmsg body;
        } request{};
        std::vector<Prefix> all;
        for (const int family : {AF_INET, AF_INET6}) {
                request.header.nlmsg_len = sizeof request;
                request.header.nlmsg_type = RTM_GETROUTE;
                request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
                request.body.rtm_family = static_cast<unsigned char>(family);
                request.body.rtm_type = RTN_LOCAL;
                const auto read = netlink_dump(
                        NETLINK_ROUTE, {reinterpret_cast<const char*>(&request), sizeof request}, "routes",
                        [&](std::span<const char> body) {
                                rtmsg route{};
                                if (body.size() < sizeof route) {
                                        return;
                                }
                                std::memcpy(&route, body.data(), sizeof route);
                                if (route.rtm_family != family ||
                                    (route.rtm_type != RTN_LOCAL && route.rtm_type != RTN_ANYCAST)) {
                                        return;
                                }
                                Prefix prefix{.address = {.family = family == AF_INET ? Family::kIpv4 : Family::kIpv6},
                                              .length = route.rtm_dst_len};
                                const auto to = netlink_attribute(body.subspan(NLMSG_ALIGN(sizeof route)), RTA_DST);
                                const std::size_t bytes = family == AF_INET ? 4 : 16;
                                if (to && to->size() >= bytes) {
                                        prefix.address = address_of(family, to->data());
                                }
                                all.push_back(prefix);
                        });
                if (!read && family == AF_INET) {
                        return std::nullopt;
                }
        }
        return all;
}

PortRange ephemeral_ports() {
        PortRange range = HostFacts{}.ephemeral;
        const auto text = read_whole_file("/proc/sys/net/ipv4/ip_local_port_range", 64);
        unsigned first = 0;
        unsigned last = 0;
        if (text && std::sscanf(text->c_str(), "%u %u", &first, &last) == 2 && first <= last && last <= 65535) {
                range = {.first = static_cast<std::uint16_t>(first), .last = static_cast<std::uint16_t>(last)};
        }
        return range;
}

// "8080,9148-9150"; none: not known.
std::optional<std::vector<PortRange>> reserved_ports() {
        // The kernel says it to the first read(2) alone.
        std::string text(65536, '\0');
        const OwnedFd fd(::open("/proc/sys/net/ipv4/ip_local_reserved_ports", O_RDONLY | O_CLOEXEC));
        const ssize_t size = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
        if (size < 0) {
                return std::nullopt;
        }
        text.resize(static_cast<std::size_t>(size));
        text.resize(text.find_last_not_of('\n') + 1);
        std::vector<PortRange> all;
        for (const auto word : std::views::split(std::string_view(text), ',')) {
                if (const auto ports = parse_ports(std::string_view(word.begin(), word.end()))) {
                        all.push_back(*ports);
                }
        }
        return all;
}

// Nothing that this process can see is of a broker in another network namespace.
bool is_of_broker(const Options& options) {
        const Directories usual;
        if (options.netns.empty()) {
                return options.runtime_dir == usual.runtime_dir || !options.config_dir.empty();
        }
        return enter_netns(options.netns);
}

// Not of NSS, which may hang: `status` must not.
std::map<uid_t, std::string> users_of_file() {
        std::map<uid_t, std::string> names;
        const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/etc/passwd", "re"), std::fclose);
        while (const passwd* entry = file ? ::fgetpwent(file.get()) : nullptr) {
                names.try_emplace(entry->pw_uid, entry->pw_name);
        }
        return names;
}

struct Registered {
        std::map<std::uint64_t, std::string> services;  // by the cookies of their sockets
        std::vector<RegisteredSocket> sockets;
};

// As a broker that runs says.
Registered registered_sockets(Options options) {
        options.verb = "list";
        options.timeout = std::chrono::seconds(1);
        Registered result;
        auto client = try_connect(options);
        if (!client) {
                return result;
        }
        (void)client->call("VERB=list\n", {}, [&](std::string_view line) {
                const auto row = parse_row(line);
                if (!row) {
                        return;
                }
                result.services[std::strtoull(cell(*row, "cookie").c_str(), nullptr, 16)] = cell(*row, "service");
                const auto protocol = parse_protocol(cell(*row, "protocol"));
                const auto bound = parse_endpoint(cell(*row, "bound"));
                if (protocol && bound && cell(*row, "state") != "draining") {
                        result.sockets.push_back({cell(*row, "service"), *protocol, *bound});
                }
        });
        return result;
}

// Whether two are bound to the very same address and port.
bool has_twins(const std::vector<FoundListener>& found) {
        std::set<std::pair<Protocol, Endpoint>> bound;
        return std::ranges::any_of(found, [&](const FoundListener& one) {
                return !bound.emplace(one.listener.protocol, one.listener.bound).second;
        });
}

// `known`: with units and services too, which takes a look at every process.
std::vector<HostListener> with_names(std::vector<FoundListener> found,
                                     const std::map<std::uint64_t, std::string>* known) {
        const auto services = known != nullptr ? *known : std::map<std::uint64_t, std::string>();
        const auto by_inode = known != nullptr ? units_of(found) : std::map<std::uint64_t, std::set<std::string>>();
        const auto names = by_inode.empty() ? std::map<uid_t, std::string>() : users_of_file();
        std::vector<HostListener> all;
        for (auto& [listener, inode, cookie] : found) {
                if (const auto at = services.find(cookie); at != services.end()) {
                        listener.service = at->second;
                }
                if (const auto at = by_inode.find(inode); at != by_inode.end()) {
                        listener.units.assign(at->second.begin(), at->second.end());
                }
                if (const auto at = names.find(listener.uid); at != names.end()) {
                        listener.user = at->second;
                }
                all.push_back(std::move(listener));
        }
        return all;
}

}  // namespace

std::vector<Diagnostic> warnings_of_host(const Options& options, const Policy& policy, bool ask_units) {
        if (!is_of_broker(options)) {
                return {};
        }
        HostFacts host{.addresses = addresses_in_use(),
                       .local = local_prefixes(),
                       .ephemeral = ephemeral_ports(),
                       .reserved = reserved_ports(),
                       .netns = options.netns};
        const bool claims_units = ask_units && std::ranges::any_of(policy.services, [](const Service& one) {
                                          return !one.units.empty();
                                  });
        if (claims_units) {
                if (auto units = units_that_exist()) {
                        host.units = std::move(units->names);
                        host.aliases = std::move(units->aliases);
                }
        }
        if (auto found = listeners()) {
                // Whose they are takes a look at every process: only if it matters.
                HostFacts alone{.listeners = with_names(*found, nullptr),
                                .addresses = host.addresses,
                                .ephemeral = host.ephemeral};
                const bool matters = !host_warnings(policy, alone).empty();
                auto registered = matters || has_twins(*found) ? registered_sockets(options) : Registered();
                host.registered = std::move(registered.sockets);
                host.listeners =
                        matters ? with_names(std::move(*found), &registered.services) : std::move(alone.listeners);
        }
        return first_of_each_file(host_warnings(policy, host));
}

std::vector<Diagnostic> warnings_of_disk(const Options& options, std::string_view digest) {
        if (!is_of_broker(options)) {
                return {};
        }
        const auto deadline = deadline_after(Deadline::clock::now(), patience_of(options));
        if (auto silent = first_silent(options.config_dirs, {}, deadline)) {
                silent->severity = Severity::kWarning;
                return {*std::move(silent)};
        }
        const auto found = read_policy_files(options.config_dirs);
        std::size_t bytes = 0;
        for (const auto& file : found.files) {
                bytes += file.text.size();
        }
        if (!found.diagnostics.empty() || bytes > kMaxQuickBytes) {
                return {};
        }
        if (!digest.empty() && digest_of(found.files) != digest) {
                // Where there is no file at all, the broker may have been given another directory.
                return !found.any
                               ? std::vector<Diagnostic>()
                               : std::vector{Diagnostic{options.config_dirs.front() + "/conf.d", 0, Severity::kWarning,
                                                        "the policy on disk is not the one in force, see "
                                                        "sockbrokerctl diff for what a reload would do"}};
        }
        const auto parsed = parse_policy(found.files, load_broker_config(options.config_dirs).config.limits);
        return parsed.policy ? warnings_of_host(options, *parsed.policy, digest.empty()) : std::vector<Diagnostic>();
}

}  // namespace sockbroker::ctl
