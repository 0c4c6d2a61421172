// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/zygote_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "broker/hands/door_process.h"
#include "broker/hands/hand_process.h"
#include "broker/hands/roles.h"
#include "broker/hands/wire.h"

namespace sockbroker::hands {

namespace {

constexpr int kSignals = 4;  // where zygote.profile expects it
constexpr std::size_t kMaxChildren = 256;
constexpr int kOutOfTheWay = 32;  // above all numbers that a child starts with
// Of the queue from the door: the least. Its descriptors are in flight, and a sender with 2,024 of those waits for the
// kernel's garbage collector, which may be waiting for a peer. And what lies there is taken by hands though its sender
// has been barred meanwhile.
constexpr int kQueueBytes = 0;

// Once it runs it needs no memory: without it no hand can be replaced.
class ZygoteProcess {
public:
        ZygoteProcess(int socket, Filters filters, std::uint64_t netns_cookie, std::size_t max_fds,
                      ClosedByDoor& closed, OwnedFd door_end, OwnedFd disposal_end)
                : socket_(socket),
                  filters_(std::move(filters)),
                  netns_cookie_(netns_cookie),
                  max_fds_(max_fds),
                  closed_(closed),
                  door_end_(std::move(door_end)),
                  disposal_end_(std::move(disposal_end)) {}

        void run() {
                std::array<pollfd, 2> polled{pollfd{socket_, POLLIN, 0}, pollfd{kSignals, POLLIN, 0}};
                while (true) {
                        if (ppoll(polled.data(), polled.size(), nullptr, nullptr) < 0) {
                                continue;
                        }
                        if (polled[1].revents != 0) {
                                reap();
                        }
                        if (polled[0].revents != 0 && !obey()) {
                                return;  // the core is gone
                        }
                }
        }

private:
        using Given = std::array<OwnedFd, kMaxGiven>;
        struct Child {
                pid_t pid = 0;  // none
                std::uint32_t number = 0;
        };

        Child* find(pid_t pid) {
                const auto found = std::ranges::find(children_, pid, &Child::pid);
                return found == children_.end() ? nullptr : &*found;
        }

        void report(ZygoteReportKind kind, std::uint32_t child, int value) const {
                (void)send_bytes(socket_, as_bytes_of(ZygoteReport{.kind = kind, .child = child, .value = value}), {},
                                 true);
        }

        void reap() {
                signalfd_siginfo signal;
                (void)!read(kSignals, &signal, sizeof signal);
                int status = 0;
                for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
                        if (Child* const found = find(pid)) {
                                found->pid = 0;
                                report(ZygoteReportKind::kExited, found->number, status);
                        }
                }
        }

        bool obey() {
                ZygoteOrder order;
                iovec vector = {.iov_base = &order, .iov_len = sizeof order};
                alignas(cmsghdr) char control[CMSG_SPACE(kMaxGiven * sizeof(int))];
                msghdr header{
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                const ssize_t size = recvmsg(socket_, &header, MSG_CMSG_CLOEXEC);
                Given fds;
                std::size_t count = 0;
                for (cmsghdr* part = CMSG_FIRSTHDR(&header); size > 0 && part != nullptr;
                     part = CMSG_NXTHDR(&header, part)) {
                        for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len; at += sizeof(int)) {
                                int fd = -1;
                                std::memcpy(&fd, reinterpret_cast<const char*>(part) + at, sizeof fd);
                                fds.at(count++).reset(fd);
                        }
                }
                if (size != sizeof order) {
                        return size < 0 && errno == EINTR;
                }
                if (order.kind == ZygoteOrderKind::kKill) {
                        for (const Child& one : children_) {
                                if (one.pid != 0 && one.number == order.child) {
                                        (void)kill(one.pid, SIGKILL);  // not reaped yet, so it is nobody else
                                }
                        }
                        return true;
                }
                const pid_t pid = fork_child(order, fds);
                const int errnum = errno;
                fds = {};
                report(pid < 0 ? ZygoteReportKind::kFailed : ZygoteReportKind::kForked, order.child,
                       pid < 0 ? errnum : pid);
                return true;
        }

        pid_t fork_child(const ZygoteOrder& order, const Given& fds) {
                Child* const place = find(0);
                if (place == nullptr) {
                        errno = EAGAIN;
                        return -1;
                }
                if (order.role == Role::kDoor) {  // one that was killed writes no more, however long it takes to end
                        closed_.number = 0;
                        closed_.door++;
                }
                const pid_t pid = fork();
                if (pid == 0) {
                        try {
                                become(order, fds);
                        } catch (...) {
                                _exit(EXIT_FAILURE);  // for want of memory: another one takes its place
                        }
                }
                if (pid > 0) {
                        *place = {pid, order.child};
                }
                return pid;
        }

        [[noreturn]] void become(const ZygoteOrder& order, const Given& fds) {
                // Only the door writes; no filter of a hand lets it change that.
                if (!place(order, fds) ||
                    (order.role != Role::kDoor && mprotect(&closed_, sizeof closed_, PROT_READ) != 0)) {
                        _exit(EXIT_FAILURE);
                }
                const std::string name = "sb-" + std::string(to_string(order.role));
                prctl(PR_SET_NAME, name.c_str(), 0, 0, 0);
                if (!filters_.at(static_cast<std::size_t>(order.role)).install_in_this_thread()) {
                        _exit(EXIT_FAILURE);
                }
                if (order.role == Role::kDoor) {
                        run_door(max_fds_, closed_, (order.fds >> (kLabels - kAnswers) & 1U) != 0);
                } else {
                        run_hand({.role = order.role,
                                  .for_the_door = order.for_the_door,
                                  .netns_cookie = netns_cookie_,
                                  .max_fds = max_fds_},
                                 closed_);
                }
                _exit(EXIT_SUCCESS);
        }

        // Everything to its number, and nothing else stays open.
        bool place(const ZygoteOrder& order, const Given& fds) {
                std::array<OwnedFd, kMaxGiven> placed;
                std::size_t next = 0;
                for (std::size_t i = 0; i < kMaxGiven; i++) {
                        if ((order.fds >> i & 1U) != 0) {
                                placed.at(i).reset(fcntl(fds.at(next++).get(), F_DUPFD_CLOEXEC, kOutOfTheWay));
                        }
                }
                if (order.role == Role::kDoor) {
                        placed[kBetween - kAnswers].reset(fcntl(door_end_.get(), F_DUPFD_CLOEXEC, kOutOfTheWay));
                } else if (order.role == Role::kDisposal && order.for_the_door) {
                        placed[kSecond - kAnswers].reset(fcntl(disposal_end_.get(), F_DUPFD_CLOEXEC, kOutOfTheWay));
                }
                if (close_range(kAnswers, kOutOfTheWay - 1, 0) != 0) {
                        return false;
                }
                for (std::size_t i = 0; i < kMaxGiven; i++) {
                        if (placed.at(i) && dup3(placed.at(i).get(), kAnswers + static_cast<int>(i), O_CLOEXEC) < 0) {
                                return false;
                        }
                }
                return close_range(kOutOfTheWay, ~0U, 0) == 0;
        }

        int socket_;
        Filters filters_;
        std::uint64_t netns_cookie_;
        std::size_t max_fds_;
        ClosedByDoor& closed_;
        OwnedFd door_end_;
        OwnedFd disposal_end_;
        std::array<Child, kMaxChildren> children_;
};

bool open_signals() {
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        return sigprocmask(SIG_BLOCK, &child, nullptr) == 0 &&
               signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK) == kSignals;
}

bool confine(Filters& filters) {
        auto compiled = compile_filters();
        const auto profile = zygote_profile();
        const auto own = profile ? sandbox::compile(*profile) : std::unexpected(profile.error());
        if (!compiled || !own) {
                return false;
        }
        filters = std::move(*compiled);
        return own->install_in_this_thread().has_value();
}

}  // namespace

void run_zygote(OwnedFd socket, std::uint64_t netns_cookie) {
        int between[2];
        if (!open_signals() || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, between) != 0) {
                return;
        }
        OwnedFd door_end(between[0]);
        OwnedFd disposal_end(between[1]);
        (void)setsockopt(door_end.get(), SOL_SOCKET, SO_SNDBUF, &kQueueBytes, sizeof kQueueBytes);
        void* const shared =
                mmap(nullptr, sizeof(ClosedByDoor), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared == MAP_FAILED) {
                return;
        }
        auto* const closed = new (shared) ClosedByDoor;
        const auto given = give_up_the_rest();
        if (!given) {
                return;
        }
        (void)send_bytes(socket.get(), as_bytes_of(ZygoteReport{.kind = ZygoteReportKind::kClosed,
                                                                .value = given->missing_landlock}));
        // The core goes on meanwhile: what it asks for waits.
        if (Filters filters; confine(filters)) {
                ZygoteProcess(socket.get(), std::move(filters), netns_cookie, given->max_fds, *closed,
                              std::move(door_end), std::move(disposal_end))
                        .run();
        }
        _exit(EXIT_SUCCESS);
}

}  // namespace sockbroker::hands
