// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "sandbox/supervise/end_socket.h"
#include "sandbox/supervise/log.h"
#include "sandbox/supervise/unix_bind.h"

namespace sockbroker::supervise {

namespace {

constexpr std::size_t kMostKnown = 16384;
constexpr std::chrono::milliseconds kBetweenSearches{200};
constexpr std::chrono::milliseconds kLongestBetween{10'000};
constexpr int kLongestAddress = sizeof(sockaddr_storage);  // the kernel's own bound

int option(int fd, int level, int name) {
        int value = -1;
        socklen_t size = sizeof value;
        return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

SocketKind kind_of_socket(int fd) {
        SocketKind kind{.domain = option(fd, SOL_SOCKET, SO_DOMAIN),
                        .type = option(fd, SOL_SOCKET, SO_TYPE),
                        .protocol = option(fd, SOL_SOCKET, SO_PROTOCOL)};
        kind.v6only = kind.domain == AF_INET6 && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1;
        return kind;
}

// Of O_PATH: for most calls a number without a file.
bool is_path(int fd) {
        const int flags = ::fcntl(fd, F_GETFL);
        return flags >= 0 && (flags & O_PATH) != 0;
}

unsigned read_first_unprivileged() {
        unsigned first = 1024;
        std::ifstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") >> first;
        return first;
}

// Of what the program would be asked to look into.
int not_allowed(const Target& target, const Error& error) {
        if (error.errnum != EPERM && error.errnum != EACCES) {
                return error.errnum == 0 ? EFAULT : error.errnum;
        }
        say(fmt::format(
                "may not look into process {}, so its bind is refused: it has made itself undumpable "
                "(PR_SET_DUMPABLE; --user-namespace=yes gives the right to look), or runs a file that its user "
                "cannot read (chmod a+r), or Landlock or an LSM keeps others out: {}",
                target.pid(), error.message));
        return EACCES;
}

}  // namespace

std::uint64_t cookie_of(int fd) {
        std::uint64_t cookie = 0;
        socklen_t size = sizeof cookie;
        return ::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

bool is_bound(int fd) {
        const auto facts = probe_socket(fd);
        return facts && facts->bound.port != 0;
}

Supervisor::Supervisor(Settings settings, Notifications notifications, Spares spares, pid_t program)
        : settings_(std::move(settings)),
          notifications_(std::move(notifications)),
          spares_(std::move(spares)),
          broker_(settings_.runtime_dir, settings_.services),
          table_(kMostKnown),
          first_unprivileged_(read_first_unprivileged()),
          zombie_(program),
          heirs_(kMostKnown),
          between_searches_(kBetweenSearches) {}

int Supervisor::patience() const {
        using std::chrono::milliseconds;
        const auto now = std::chrono::steady_clock::now();
        auto until = std::min(zombie_.next(), spares_.next_drop());
        if (heirs_.any()) {
                until = std::min(until, find_heirs_at_);
        }
        if (until == std::chrono::steady_clock::time_point::max()) {
                return -1;
        }
        return std::max(0, static_cast<int>(std::chrono::ceil<milliseconds>(until - now).count()));
}

void Supervisor::run() {
        std::vector<pollfd> entries;
        for (;;) {
                entries.assign(1, {.fd = notifications_.fd(), .events = POLLIN, .revents = 0});
                zombie_.add_to(entries);
                heirs_.add_to(entries);
                if (::poll(entries.data(), entries.size(), patience()) < 0) {
                        if (errno == EINTR) {
                                continue;
                        }
                        // As with a limit of descriptors that the program has taken from its supervisor, for good.
                        say(fmt::format("cannot wait for the program, so the supervisor ends and no bind succeeds: {}",
                                        std::strerror(errno)));
                        return;
                }
                const auto now = std::chrono::steady_clock::now();
                spares_.drop_held(now);
                if ((entries[0].revents & POLLIN) != 0) {
                        if (const auto request = notifications_.receive()) {
                                handle(*request);
                        }
                } else if (entries[0].revents != 0 || zombie_.is_alone()) {
                        return;  // POLLHUP
                }
                heirs_.note_ended();
                if (heirs_.any() && now >= find_heirs_at_) {
                        find_heirs();
                }
        }
}

// Not more often, however fast processes of the program come and go; and less and less often while the broker does not
// answer, since no bind of the program is answered meanwhile.
void Supervisor::find_heirs() {
        bool answered = true;
        try {
                for (const auto& heir : heirs_.find()) {
                        answered = answered && inherit(heir);
                }
        } catch (const std::exception& error) {
                say(fmt::format("cannot look for who has a socket now: {}", error.what()));
        }
        between_searches_ = answered ? kBetweenSearches : std::min(2 * between_searches_, kLongestBetween);
        find_heirs_at_ = std::chrono::steady_clock::now() + between_searches_;
}

// One that a newer socket has displaced stays behind it, though a helper of the program may have it still. What cannot
// be inherited now is looked for again, and what nobody may inherit is not.
bool Supervisor::inherit(const Heirs::Heir& heir) {
        Known* known = table_.find(heir.cookie);
        if (known == nullptr) {
                heirs_.forget(heir.cookie);
                return true;
        }
        const auto target = Target::open(heir.pid);
        const auto fd = target ? target->descriptor(heir.number) : fail(ESRCH, "it is gone");
        if (fd && cookie_of(fd->get()) != heir.cookie) {
                return true;
        }
        const int errnum = fd ? hand_over(*known, fd->get(), heir.pid, Place::kAsItIs) : fd.error().errnum;
        if (errnum != 0 && errnum != EAGAIN && errnum != EBADF && target && target->lives()) {
                heirs_.forget(heir.cookie);
        }
        return errnum != EAGAIN;
}

void Supervisor::handle(const seccomp_notif& request) {
        int errnum = ENOMEM;
        try {
                if (request.data.nr == SYS_getsockname) {
                        const auto named = name(request);
                        return named ? notifications_.answer(request.id, *named) : notifications_.let_go_on(request.id);
                }
                errnum = work(request);
        } catch (const std::exception& error) {
                say(fmt::format("a bind of process {} is refused: {}", request.pid, error.what()));
        }
        notifications_.answer(request.id, errnum);
}

int Supervisor::work(const seccomp_notif& request) {
        const auto target = Target::open(static_cast<pid_t>(request.pid));
        if (!target) {
                return target.error().errnum == EPERM ? EACCES : EAGAIN;  // it is gone
        }
        const auto number = static_cast<int>(request.data.args[0]);
        const auto fd = target->descriptor(number);
        if (!fd) {
                return not_allowed(*target, fd.error());
        }
        // What was taken is of the thread that waits: its number had not gone to another meanwhile.
        if (!notifications_.is_valid(request.id)) {
                return EINTR;
        }
        const Call call{.id = request.id,
                        .target = *target,
                        .number = number,
                        .fd = fd->get(),
                        .kind = kind_of_socket(fd->get())};
        if (call.kind.domain < 0) {
                return is_path(fd->get()) ? EBADF : ENOTSOCK;
        }
        return request.data.nr == SYS_bind ? bind(call, request.data.args[1], static_cast<int>(request.data.args[2]))
                                           : listen(call, static_cast<int>(request.data.args[1]));
}

// Of a socket that was taken over alone, and only for the program itself: whatever it says instead is its own affair.
std::optional<int> Supervisor::name(const seccomp_notif& request) {
        const auto target = Target::open(static_cast<pid_t>(request.pid));
        const auto fd = target ? target->descriptor(static_cast<int>(request.data.args[0])) : fail("it is gone");
        const Known* known = fd ? table_.find(cookie_of(fd->get())) : nullptr;
        if (known == nullptr || (known->services.empty() && settings_.registers) || known->asked.at.port == 0) {
                return std::nullopt;
        }
        const auto to = request.data.args[1];
        const auto size_at = request.data.args[2];
        int room = 0;
        const auto read = target->read(size_at, std::as_writable_bytes(std::span(&room, 1)));
        // As the kernel tells it, whatever length the program gave.
        const auto asked = to_socket_address(known->asked.at, known->asked.ipv6);
        const auto whole = std::as_bytes(std::span(&asked.storage, 1)).first(asked.size);
        // Directly before the one call that writes: the memory is found by the thread's number.
        if (!read || !notifications_.is_valid(request.id)) {
                return std::nullopt;
        }
        if (room < 0) {
                return EINVAL;
        }
        const auto done = target->write(std::array{
                Target::Piece{.address = to, .from = whole.first(std::min(static_cast<socklen_t>(room), asked.size))},
                Target::Piece{.address = size_at, .from = std::as_bytes(std::span(&asked.size, 1))}});
        return done ? 0 : EFAULT;
}

int Supervisor::bind(const Call& call, std::uint64_t address, int size) {
        if (size < 0 || size > kLongestAddress) {
                return EINVAL;
        }
        SocketAddress asked;
        asked.size = static_cast<socklen_t>(size);
        const std::span bytes(reinterpret_cast<std::byte*>(&asked.storage), static_cast<std::size_t>(size));
        if (const auto read = call.target.read(address, bytes); !read) {
                return not_allowed(call.target, read.error());
        }
        // And what was read, too.
        if (!notifications_.is_valid(call.id)) {
                return EINTR;
        }
        if (call.kind.domain == AF_UNIX && names_file(bytes)) {
                return bind_unix(call.fd, asked, call.target, [&] { return notifications_.is_valid(call.id); });
        }
        // On kernels before 5.19 a signal may end a call that was done here already, and the program makes it again.
        const auto cookie = cookie_of(call.fd);
        // Not where it is bound no more: one that was dissolved, connect(2) to AF_UNSPEC, loses a port of the kernel's
        // choice.
        if (Known* known = table_.find(cookie);
            known != nullptr && std::ranges::equal(known->bytes, bytes) && is_bound(call.fd)) {
                // Of UDP the socket stays bound where the broker refused it, and the program may try again.
                const bool refused = !known->services.empty() && known->asked.protocol == Protocol::kUdp &&
                                     known->registered_for == 0;
                if (refused && std::exchange(known->ended, false)) {
                        revive_socket(call.fd);
                }
                return refused ? hand_over(*known, call.fd, call.target.pid(), Place::kFirst) : 0;
        }
        Known known{.bytes = {bytes.begin(), bytes.end()}, .services = {}, .asked = {}};
        const auto plan = plan_bind(call.kind, bytes, settings_.limits);
        if (plan.errnum != 0) {
                return plan.errnum;
        }
        const auto protocol = protocol_of(call.kind);
        if (plan.taken_over && !(protocol && chosen_ports_.has(*protocol, plan.taken_over->at.port))) {
                known.asked = *plan.taken_over;
                return take_over(call, std::move(known));
        }
        if (settings_.registers && nobody_takes(call.kind, bytes, settings_.limits)) {
                say(fmt::format(
                        "a bind of process {} is refused: services take TCP and UDP, and no socket of protocol {}",
                        call.target.pid(), call.kind.protocol));
                return EACCES;
        }
        int errnum = ::bind(call.fd, asked.get(), asked.size) == 0 ? 0 : errno;
        // To a loopback address: policy may let the unit.
        if (errnum == EACCES && call.kind.type == SOCK_DGRAM && settings_.registers &&
            broker_.prepare({}, call.target.pid()).ok()) {
                errnum = ::bind(call.fd, asked.get(), asked.size) == 0 ? 0 : errno;
        }
        if (errnum != 0) {
                return errnum;
        }
        if (call.kind.domain == AF_INET || call.kind.domain == AF_INET6) {
                if (protocol && asks_for_any_port(bytes)) {
                        chosen_ports_.note(call.target.pid(), call.number, call.fd, *protocol);
                }
                table_.put(cookie, std::move(known));
        }
        return 0;
}

int Supervisor::listen(const Call& call, int backlog) {
        const bool ip = call.kind.domain == AF_INET || call.kind.domain == AF_INET6;
        if (!ip || call.kind.type != SOCK_STREAM) {
                return ::listen(call.fd, backlog) == 0 ? 0 : errno;
        }
        Known* known = table_.find(cookie_of(call.fd));
        const auto facts = probe_socket(call.fd);
        if (known == nullptr && facts && facts->bound.port == 0) {
                // It would be bound to a port of the kernel's choice at every address of the machine.
                const Family family = call.kind.domain == AF_INET ? Family::kIpv4 : Family::kIpv6;
                const auto at = to_socket_address({.address = loopback(family), .port = 0}, false);
                if (::bind(call.fd, at.get(), at.size) != 0) {
                        return errno;
                }
        }
        if (::listen(call.fd, backlog) != 0) {
                return errno;
        }
        // One that was shut down meanwhile has lost its place.
        const bool goes_on = facts && facts->listening;
        if (known == nullptr || known->services.empty()) {
                return 0;
        }
        if (goes_on && known->registered_for != 0) {
                return listen_again(*known, call);
        }
        const int errnum = hand_over(*known, call.fd, call.target.pid(), Place::kFirst);
        if (errnum != 0 && known->own) {
                // As if listen(2) had failed, so that the program may try again.
                (void)::shutdown(call.fd, SHUT_RD);
        }
        return errnum;
}

// As workers do with the socket of their parent, and a server for another backlog. It serves already, or a newer one
// does, and nothing that the broker says or does not say of this one shall change that: the socket is everybody's. Or
// policy took it away, and says now whether it gets it back.
int Supervisor::listen_again(Known& known, const Call& call) {
        const int errnum = hand_over(known, call.fd, call.target.pid(), Place::kAsItIs);
        return errnum == EAGAIN ? 0 : errnum;
}

}  // namespace sockbroker::supervise
