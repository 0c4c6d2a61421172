// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/hand_process.h"

#include <linux/bpf.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <vector>

#include "broker/hands/kept_sockets.h"
#include "broker/protocol/message.h"
#include "broker/socket/queue.h"

namespace sockbroker::hands {

namespace {

// A holder that is nearly full takes nothing more: what does not fit would be closed inside recvmsg(2).
constexpr std::size_t kSpareDescriptors = 2 * kMaxMessageFds + 64;

// A record with its descriptors, or nothing: the other end is gone, or, where it does not wait, nothing is there.
struct Received {
        std::size_t size = 0;
        bool interrupted = false;
        std::vector<OwnedFd> fds;
};

Received receive_record(int socket, std::span<std::byte> into, int flags) {
        iovec vector = {.iov_base = into.data(), .iov_len = into.size()};
        alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))];
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        const ssize_t size = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
        Received received;
        if (size <= 0) {
                received.interrupted = size < 0 && errno == EINTR;
                return received;
        }
        received.size = static_cast<std::size_t>(size);
        for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
                if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
                        continue;
                }
                for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len; at += sizeof(int)) {
                        int fd = -1;
                        std::memcpy(&fd, reinterpret_cast<const char*>(part) + at, sizeof fd);
                        received.fds.emplace_back(fd);
                }
        }
        return received;
}

// Sleeps while the socket's owner keeps its lock.
int offer(std::uint32_t slot, int socket) {
        const auto value = static_cast<std::uint64_t>(socket);
        bpf_attr attributes{};
        attributes.map_fd = kFirst;
        attributes.key = reinterpret_cast<std::uintptr_t>(&slot);
        attributes.value = reinterpret_cast<std::uintptr_t>(&value);
        attributes.flags = BPF_ANY;
        return syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attributes, sizeof attributes) == 0 ? 0 : errno;
}

void withdraw(std::uint32_t slot) {
        bpf_attr attributes{};
        attributes.map_fd = kFirst;
        attributes.key = reinterpret_cast<std::uintptr_t>(&slot);
        (void)syscall(SYS_bpf, BPF_MAP_DELETE_ELEM, &attributes, sizeof attributes);
}

class HandProcess {
public:
        HandProcess(const Setup& setup, const ClosedByDoor& closed)
                : role_(setup.role),
                  for_the_door_(setup.for_the_door),
                  netns_cookie_(setup.netns_cookie),
                  max_fds_(setup.max_fds),
                  closed_(closed) {}

        void run() {
                while (wait()) {
                }
                (void)kept_.tell(kSecond);  // the core has ended: what PID 1 can still hear
        }

private:
        // One order, or what the door has sent, or room at PID 1, or a word of it. False: the core is gone.
        bool wait() {
                std::array<pollfd, 3> polled{pollfd{kOrders, POLLIN, 0}, pollfd{-1, 0, 0},
                                             pollfd{kept_.barrier(), 0, 0}};
                if (for_the_door_) {
                        polled[1] = {kSecond, POLLIN, 0};
                } else if (kept_.has_news()) {
                        polled[1] = {kSecond, POLLOUT, 0};
                } else if (kept_.barrier() < 0) {
                        return obey();  // which waits
                }
                if (ppoll(polled.data(), polled.size(), nullptr, nullptr) < 0) {
                        return errno == EINTR;
                }
                if (polled[2].revents != 0) {
                        forget(kept_.confirmed());
                }
                if (polled[0].revents != 0) {
                        return obey();
                }
                if (for_the_door_) {
                        close_for_the_door();
                } else if (polled[1].revents != 0) {
                        forget(kept_.tell(kSecond));
                }
                return true;
        }

        // Said first: closing them is what may take long.
        void forget(const std::vector<KeptSockets::Forgotten>& all) const {
                for (const auto& one : all) {
                        answer({.kind = AnswerKind::kForgotten, .job = one.job});
                }
        }

        // Another hand may have been quicker.
        void close_for_the_door() {
                Discarded discarded;
                Received received =
                        receive_record(kSecond, std::as_writable_bytes(std::span(&discarded, 1)), MSG_DONTWAIT);
                if (received.size != sizeof discarded) {
                        return;
                }
                wait_for_the_door(discarded);
                answer({.kind = AnswerKind::kBusy,
                        .uid = discarded.uid,
                        .offender = discarded.offender,
                        .count = static_cast<std::uint16_t>(received.fds.size())});
                received.fds.clear();
                answer({.kind = AnswerKind::kIdle});
        }

        // A moment: it closes them right after it has sent them.
        void wait_for_the_door(const Discarded& discarded) const {
                constexpr timespec kMoment{.tv_sec = 0, .tv_nsec = 20'000};
                while (closed_.door == discarded.door &&
                       static_cast<std::int32_t>(closed_.number - discarded.number) < 0) {
                        (void)ppoll(nullptr, 0, &kMoment, nullptr);
                }
        }

        bool obey() {
                std::array<std::byte, kMaxOrder> record;
                Received received = receive_record(kOrders, record, 0);
                Order order;
                if (received.size < sizeof order) {
                        return received.interrupted;
                }
                put_.clear();  // those of the order before: the core has closed its own by now
                std::memcpy(&order, record.data(), sizeof order);
                const std::size_t cookies = order.cookies * sizeof(std::uint64_t);
                if (order.cookies > kMaxMessageFds || received.size != sizeof order + cookies + order.text) {
                        return false;  // no core of ours
                }
                std::vector<std::uint64_t> list(order.cookies);
                if (cookies != 0) {
                        std::memcpy(list.data(), record.data() + sizeof order, cookies);
                }
                const std::string_view text(reinterpret_cast<const char*>(record.data()) + sizeof order + cookies,
                                            order.text);
                carry_out(order, list, text, received.fds);
                return true;
        }

        void carry_out(const Order& order, const std::vector<std::uint64_t>& cookies, std::string_view text,
                       std::vector<OwnedFd>& fds) {
                int errnum = 0;
                switch (order.kind) {
                case OrderKind::kTake:
                        take(order, fds);
                        return;
                case OrderKind::kAdopt:
                        adopt(order, cookies, fds);
                        return;
                case OrderKind::kPut:
                        if (role_ == Role::kQuarantine) {
                                keep_unseen(fds);
                                errnum = is_full() ? EMFILE : 0;
                        } else {
                                put_ = std::move(fds);
                        }
                        break;
                case OrderKind::kRelease:
                        kept_.release(cookies);
                        break;
                case OrderKind::kSend:
                        errnum = give(cookies, text, fds);
                        break;
                case OrderKind::kStore:
                        errnum = cookies.size() == 1 ? kept_.store(cookies[0], text) : EINVAL;
                        forget(kept_.tell(kSecond));
                        break;
                case OrderKind::kUnstore:
                        errnum = kept_.unstore(order.job, cookies.empty() ? 0 : cookies[0], text);
                        break;
                case OrderKind::kSample:
                        sample(order, cookies);
                        return;
                }
                answer({.kind = AnswerKind::kDone, .job = order.job, .errnum = errnum});
        }

        void take(const Order& order, std::vector<OwnedFd>& fds) {
                const bool notify = order.source == Source::kNotify;
                const int socket = !notify                  ? (fds.empty() ? -1 : fds[0].get())
                                   : role_ == Role::kHolder ? kThird
                                   : role_ == Role::kIntake ? kSecond
                                                            : kFirst;
                if (socket < 0 || is_full()) {
                        answer({.kind = AnswerKind::kDone, .job = order.job, .errnum = socket < 0 ? EBADF : EMFILE});
                        return;
                }
                auto message = receive(socket);
                if (notify) {
                        answer({.kind = AnswerKind::kTaken, .job = order.job});
                }
                if (!message) {
                        answer({.kind = AnswerKind::kDone, .job = order.job, .errnum = message.error().errnum});
                        return;
                }
                if (message->truncated) {
                        message->fds = std::move(message->dropped);
                }
                if (role_ == Role::kQuarantine) {
                        const auto count = static_cast<std::uint16_t>(message->fds.size());
                        keep_unseen(message->fds);
                        answer({.kind = AnswerKind::kDone,
                                .job = order.job,
                                .count = count,
                                .truncated = message->truncated});
                        return;
                }
                if (!order.probe || message->truncated) {
                        Answer closed{.kind = AnswerKind::kDone,
                                      .job = order.job,
                                      .count = static_cast<std::uint16_t>(message->fds.size()),
                                      .truncated = message->truncated};
                        message->fds.clear();
                        answer(closed);
                        return;
                }
                examine(order, std::move(message->fds));
        }

        [[nodiscard]] bool is_full() const { return kept_.size() + unseen_.size() + kSpareDescriptors > max_fds_; }

        // Until the end of this process.
        void keep_unseen(std::vector<OwnedFd>& fds) {
                std::move(fds.begin(), fds.end(), std::back_inserter(unseen_));
                fds.clear();
        }

        // A message is taken whole or not at all: where one descriptor cannot be brokered, none is offered or kept.
        void examine(const Order& order, std::vector<OwnedFd> fds) {
                std::vector<Found> found(fds.size());
                bool all_fit = true;
                for (std::size_t i = 0; i < fds.size(); i++) {
                        const auto facts = probe_socket(fds[i].get());
                        if (facts) {
                                found[i].facts = *facts;
                        } else {
                                found[i].errnum = facts.error().errnum;
                        }
                        all_fit = all_fit && facts && !check_socket(*facts, netns_cookie_);
                }
                for (std::size_t i = 0; all_fit && i < fds.size(); i++) {
                        Found& one = found[i];
                        if (std::any_of(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(i),
                                        [&](const Found& other) { return other.facts.cookie == one.facts.cookie; })) {
                                one.staging = Staging::kAgain;
                                continue;
                        }
                        one.errnum = offer(order.staging + static_cast<std::uint32_t>(i), fds[i].get());
                        one.staging = one.errnum != 0 ? Staging::kFailed : Staging::kOffered;
                        if (one.errnum == 0 && order.keep) {
                                kept_.keep(one.facts.cookie, std::move(fds[i]));
                        }
                }
                withdraw_others(order.staging, found);
                fds.clear();
                answer({.kind = AnswerKind::kDone,
                        .job = order.job,
                        .count = static_cast<std::uint16_t>(found.size()),
                        .has_facts = true},
                       found);
        }

        // What messages before it left. A socket that stands in n entries of a map keeps all grace periods of the
        // machine waiting while it is closed: the kernel looks through the entries that remain for each of them.
        void withdraw_others(std::uint32_t staging, const std::vector<Found>& found) {
                for (std::size_t i = 0; i < offered_; i++) {
                        if (i >= found.size() || found[i].staging != Staging::kOffered) {
                                withdraw(staging + static_cast<std::uint32_t>(i));
                        }
                }
                offered_ = found.size();
        }

        void adopt(const Order& order, const std::vector<std::uint64_t>& cookies, std::vector<OwnedFd>& fds) {
                std::vector<Found> found(fds.size());
                for (std::size_t i = 0; i < std::min(fds.size(), cookies.size()); i++) {
                        found[i].facts.cookie = cookies[i];
                        found[i].staging = Staging::kKept;
                        kept_.keep(cookies[i], std::move(fds[i]));
                }
                answer({.kind = AnswerKind::kDone,
                        .job = order.job,
                        .count = static_cast<std::uint16_t>(found.size()),
                        .has_facts = true},
                       found);
        }

        void sample(const Order& order, const std::vector<std::uint64_t>& cookies) const {
                std::vector<Found> found(cookies.size());
                for (std::size_t i = 0; i < cookies.size(); i++) {
                        const int socket = kept_.find(cookies[i]);
                        found[i].facts.cookie = cookies[i];
                        found[i].errnum = socket < 0 ? ENOENT : 0;
                        found[i].waiting = socket < 0 ? 0 : waiting_in(socket);
                }
                answer({.kind = AnswerKind::kDone,
                        .job = order.job,
                        .count = static_cast<std::uint16_t>(found.size()),
                        .has_facts = true},
                       found);
        }

        int give(const std::vector<std::uint64_t>& cookies, std::string_view text, const std::vector<OwnedFd>& fds) {
                std::vector<int> sockets;
                for (const std::uint64_t cookie : cookies) {
                        sockets.push_back(kept_.find(cookie));
                        if (sockets.back() < 0) {
                                return ENOENT;
                        }
                }
                return fds.empty() ? EBADF : send_bytes(fds[0].get(), std::as_bytes(std::span(text)), sockets);
        }

        static void answer(Answer head, const std::vector<Found>& found = {}) {
                std::array<std::byte, kMaxAnswer> bytes;
                head.size = static_cast<std::uint32_t>(sizeof head + found.size() * sizeof(Facts));
                std::memcpy(bytes.data(), &head, sizeof head);
                for (std::size_t i = 0; i < found.size(); i++) {
                        const Facts facts = to_wire(found[i]);
                        std::memcpy(bytes.data() + sizeof head + i * sizeof facts, &facts, sizeof facts);
                }
                for (std::size_t written = 0; written < head.size;) {
                        const ssize_t r = write(kAnswers, bytes.data() + written, head.size - written);
                        if (r < 0 && errno != EINTR) {
                                _exit(EXIT_SUCCESS);  // the core is gone
                        }
                        written += r < 0 ? 0 : static_cast<std::size_t>(r);
                }
        }

        Role role_;
        bool for_the_door_;
        std::uint64_t netns_cookie_;
        std::size_t max_fds_;
        const ClosedByDoor& closed_;
        KeptSockets kept_;
        std::size_t offered_ = 0;  // nothing stands in its slots of the staging map from this one on
        std::vector<OwnedFd> put_;
        std::vector<OwnedFd> unseen_;  // in quarantine
};

}  // namespace

void run_hand(const Setup& setup, const ClosedByDoor& closed) {
        HandProcess(setup, closed).run();
}

}  // namespace sockbroker::hands
