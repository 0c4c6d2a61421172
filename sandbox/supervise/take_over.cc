// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A bind that the broker's policy decides: who takes it, which socket it gets, and when it is handed over.
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sandbox/supervise/address.h"
#include "sandbox/supervise/answers.h"
#include "sandbox/supervise/end_socket.h"
#include "sandbox/supervise/log.h"
#include "sandbox/supervise/options_copy.h"
#include "sandbox/supervise/supervisor.h"

namespace sockbroker::supervise {

namespace {

constexpr auto kHeldFor = std::chrono::seconds(10);
constexpr int kIpv6Freebind = 78;  // linux/in6.h, which does not go with netinet/in.h

void tell(std::string_view what, const Reply& reply) {
        const auto more = advice(reply.result);
        say(fmt::format("{}: {}: {}{}{}", what, reply.result, reply.message, more.empty() ? "" : "; ", more));
}

void set(int fd, int level, int name, int value = 1) {
        (void)::setsockopt(fd, level, name, &value, sizeof value);
}

int bind_to(int fd, const Endpoint& at, bool mapped) {
        const auto address = to_socket_address(at, mapped);
        return ::bind(fd, address.get(), address.size) == 0 ? 0 : errno;
}

// IPv4, or both families: a v4-mapped address, which takes both.
bool at_ipv4(const Asked& asked) {
        return asked.dual || asked.at.address.family == Family::kIpv4;
}

int bind_at_one(int fd, const std::string& service, const Asked& asked, std::span<const std::uint16_t> ports) {
        int errnum = 0;
        const Family family = at_ipv4(asked) ? Family::kIpv4 : Family::kIpv6;
        for (const std::uint16_t port : ports) {
                for (unsigned attempt = 0; attempt < kPlaces; attempt++) {
                        errnum = bind_to(fd, {.address = place_of(service, family, attempt), .port = port}, asked.ipv6);
                        if (errnum != EADDRINUSE) {
                                return errnum;
                        }
                }
        }
        if (errnum != EADDRINUSE || asked.protocol != Protocol::kTcp) {
                return errnum;
        }
        // Who has one of these ports on all addresses, as anybody may, must not keep the program from its own.
        say(fmt::format(
                "bind to {}: somebody has port {} on all addresses, so the socket gets a port of the kernel's "
                "choice, and if it is held no later instance finds it (ss -ltnp 'sport = {}' names him)",
                describe(asked), ports.back(), ports.back()));
        return bind_to(fd, {.address = place_of(service, family, 0), .port = 0}, asked.ipv6);
}

int bind_at_place(int fd, const std::string& service, const Asked& asked, std::span<const std::uint16_t> ports) {
        // So that the next instance joins the group.
        set(fd, SOL_SOCKET, SO_REUSEPORT);
        int freebind = 0;
        socklen_t size = sizeof freebind;
        if (asked.ipv6 && ::getsockopt(fd, IPPROTO_IPV6, kIpv6Freebind, &freebind, &size) == 0) {
                // An address that is nobody's; and answers leave from the addresses that were asked.
                set(fd, IPPROTO_IPV6, kIpv6Freebind);
        }
        const int errnum = bind_at_one(fd, service, asked, ports);
        // No profile permits the option, by which a socket that is not bound yet could be bound to anybody's address
        // and send as him. Connections have theirs.
        if (asked.ipv6 && (errnum != 0 || asked.protocol == Protocol::kTcp)) {
                set(fd, IPPROTO_IPV6, kIpv6Freebind, freebind);
        }
        return errnum;
}

// For a configuration test: as asked where the program may and where nobody is, else where it disturbs nobody. It
// shares the port: an instance that runs or starts meanwhile has it on loopback.
int bind_aside(int fd, const Known& known) {
        set(fd, SOL_SOCKET, SO_REUSEPORT);
        SocketAddress as_asked;
        as_asked.size = static_cast<socklen_t>(known.bytes.size());
        std::ranges::copy(known.bytes, reinterpret_cast<std::byte*>(&as_asked.storage));
        if (::bind(fd, as_asked.get(), as_asked.size) == 0) {
                return 0;
        }
        if (errno != EACCES && errno != EADDRNOTAVAIL && errno != EADDRINUSE) {
                return errno;
        }
        const Family family = at_ipv4(known.asked) ? Family::kIpv4 : Family::kIpv6;
        return bind_to(fd, {.address = loopback(family), .port = 0}, known.asked.ipv6);
}

// Of the service before it takes packets, and the program hears that it has none. Of TCP listen(2) ends it.
void end_of_refused(Known& known, int fd) {
        const auto facts = probe_socket(fd);
        if (known.own && known.asked.protocol == Protocol::kUdp && facts) {
                end_socket(fd, *facts);
                known.ended = true;
        }
}

}  // namespace

// One service, or for a socket of both families one for each.
int Supervisor::find_takers(Known& known, pid_t pid, Names& holding) {
        const Asked& asked = known.asked;
        const auto first = broker_.match(asked.protocol, asked.at, pid);
        Taken second;
        if (asked.dual && first.reply.result != "unreachable") {
                second = broker_.match(asked.protocol,
                                       {.address = Address{.family = Family::kIpv4}, .port = asked.at.port}, pid);
        }
        for (const Taken* taken : {&first, static_cast<const Taken*>(&second)}) {
                if (taken->reply.ok() && std::ranges::find(known.services, taken->service) == known.services.end()) {
                        known.services.push_back(taken->service);
                        known.keeps_group = known.keeps_group || taken->reuse_port;
                        if (taken->holds) {
                                holding.push_back(taken->service);
                        }
                }
        }
        if (!known.services.empty()) {
                return 0;
        }
        const bool second_says_more = asked.dual && first.reply.result == "not-permitted";
        const auto& reply = second_says_more ? second.reply : first.reply;
        tell(fmt::format("bind to {} by process {}", describe(asked), pid), reply);
        return errno_of(reply.result);
}

Reply Supervisor::retrieve(const std::string& service, pid_t pid) {
        std::vector<OwnedFd> held;
        auto reply = broker_.retrieve(service, pid, held);
        const auto what = fmt::format("what is held for {}", service);
        if (!reply.ok() && reply.result != "not-held") {
                tell(what, reply);
        }
        for (const auto& warning : reply.warnings) {
                say(fmt::format("{}: warning: {}", what, warning));
        }
        for (OwnedFd& fd : held) {
                spares_.add_held(service, std::move(fd), std::chrono::steady_clock::now() + kHeldFor);
        }
        return reply;
}

// One socket may be held for each of two services, or for the second alone.
int Supervisor::find_spare(const Known& known, pid_t pid, const Names& holding, std::span<const std::uint16_t> ports,
                           Given& spare) {
        const auto take = [&] {
                for (const auto& service : known.services) {
                        if (!spare.fd) {
                                spare = spares_.take(service, known.asked, ports);
                        }
                }
        };
        take();
        if (spare.fd || holding.empty()) {
                return 0;
        }
        for (const auto& service : holding) {
                // With a socket of its own the program would end the hold, and clients wait in what is held.
                if (const auto reply = retrieve(service, pid); reply.result == kTooFewDescriptors) {
                        return errno_of(reply.result);
                }
        }
        take();
        return 0;
}

int Supervisor::take_over(const Call& call, Known known) {
        if (is_bound(call.fd)) {
                return EINVAL;
        }
        const pid_t pid = call.target.pid();
        if (!settings_.registers) {
                const int errnum = bind_aside(call.fd, known);
                if (errnum == 0) {
                        table_.put(cookie_of(call.fd), std::move(known));
                }
                return errnum;
        }
        Names holding;
        if (const int errnum = find_takers(known, pid, holding); errnum != 0) {
                return errnum;
        }
        const auto ports = ports_of(known.asked.protocol, known.asked.at.port, first_unprivileged_);
        Given spare;
        if (const int errnum = find_spare(known, pid, holding, ports, spare); errnum != 0) {
                return errnum;
        }
        if (spare.fd) {
                return put_in_place(call, std::move(spare), std::move(known));
        }
        int errnum = bind_at_place(call.fd, known.services.front(), known.asked, ports);
        if (errnum == EACCES && known.asked.protocol == Protocol::kUdp) {
                if (const auto reply = broker_.prepare(known.services.front(), pid); reply.ok()) {
                        errnum = bind_at_place(call.fd, known.services.front(), known.asked, ports);
                } else {
                        tell(fmt::format("bind to {} by process {}", describe(known.asked), pid), reply);
                }
        }
        if (errnum != 0) {
                if (errnum == EACCES && known.asked.protocol == Protocol::kUdp) {
                        say(fmt::format(
                                "bind to {}: UDP keeps its port, since answers carry it, and an ordinary user "
                                "may not bind one below {}: let policy allow it to the unit (UdpReply=original of "
                                "service {}), or a .socket unit do it (ListenDatagram=127.0.0.2:{}, "
                                "FileDescriptorName={})",
                                describe(known.asked), first_unprivileged_, known.services.front(), known.asked.at.port,
                                known.services.front()));
                } else {
                        say(fmt::format("bind to {}: cannot bind it on loopback: {}", describe(known.asked),
                                        std::strerror(errnum)));
                }
                return errnum;
        }
        const bool ready = known.asked.protocol == Protocol::kUdp;
        Known& kept = table_.put(cookie_of(call.fd), std::move(known));
        return ready ? hand_over(kept, call.fd, pid, Place::kFirst) : 0;
}

int Supervisor::put_in_place(const Call& call, Given given, Known known) {
        OwnedFd& spare = given.fd;
        copy_options(call.fd, spare.get(), given.before);
        if (known.asked.ipv6 && known.asked.protocol == Protocol::kUdp) {
                set(spare.get(), IPPROTO_IPV6, kIpv6Freebind);
        }
        const bool close_on_exec = call.target.closes_on_exec(call.number);
        if (const auto done = notifications_.replace(call.id, call.number, spare.get(), close_on_exec); !done) {
                say(fmt::format("bind to {}: {}", describe(known.asked), done.error().text()));
                return EADDRNOTAVAIL;
        }
        known.own = false;
        const bool ready = known.asked.protocol == Protocol::kUdp;
        Known& kept = table_.put(cookie_of(spare.get()), std::move(known));
        return ready ? hand_over(kept, spare.get(), call.target.pid(), Place::kFirst) : 0;
}

int Supervisor::hand_over(Known& known, int fd, pid_t pid, Place place) {
        const Asked& asked = known.asked;
        const bool at_mapped = asked.ipv6 && !asked.dual && at_ipv4(asked);
        const HowToRegister how{.migrate = !known.keeps_group,
                                .inherit = place == Place::kAsItIs,
                                .family = at_mapped ? std::optional(Family::kIpv4) : std::nullopt};
        for (const auto& service : known.services) {
                const auto reply = broker_.hand_over(service, pid, fd, how);
                if (!reply.ok()) {
                        const int errnum = errno_of(reply.result);
                        // What it has it keeps, and the broker is asked again.
                        if (place == Place::kFirst || errnum != EAGAIN) {
                                tell(fmt::format("{} of process {} for {}", describe(asked), pid, service), reply);
                        }
                        if (place == Place::kFirst && service != known.services.front()) {
                                end_of_refused(known, fd);
                        }
                        return errnum;
                }
                for (const auto& warning : reply.warnings) {
                        say(fmt::format("{}: warning: {}", service, warning));
                }
        }
        known.registered_for = pid;
        table_.note_changed(cookie_of(fd));
        heirs_.watch(pid, cookie_of(fd), fd);
        return 0;
}

}  // namespace sockbroker::supervise
