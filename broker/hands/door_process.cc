// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door_process.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "broker/hands/ledger.h"
#include "broker/hands/queue_state.h"
#include "broker/hands/wire.h"
#include "broker/protocol/message.h"
#include "broker/protocol/peek.h"

namespace sockbroker::hands {

namespace {

constexpr int kAcceptsPerTurn = 64;  // between two looks at what the core orders
// Connections that wait for a hand of disposal: no more are accepted then.
constexpr std::size_t kMaxDiscardsWaiting = 1024;
constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 50'000'000};  // without descriptors, at most

struct Accepted {
        OwnedFd fd;
        uid_t uid = 0;
};

struct Discard {
        OwnedFd fd;
        uid_t uid = 0;
        std::uint32_t offender = 0;
};

class DoorProcess {
public:
        DoorProcess(std::size_t max_fds, ClosedByDoor& closed, bool labels)
                : max_kept_(max_fds / 2),
                  closed_(closed),
                  door_(closed.door),
                  too_many_(format_result(
                          ResultCode::kRateLimited,
                          fmt::format("too many connections, a user may have {}", kMaxConnectionsPerUid))),
                  barred_here_(
                          format_result(ResultCode::kRateLimited,
                                        "descriptors that this user has sent keep processes of the broker waiting: "
                                        "no connection of his is taken until they do not")),
                  labels_(labels ? kLabels : -1) {}

        void run() {
                while (wait() && kept_.size() < max_kept_) {
                }
                // What it keeps is closed with it, which may take as long as its senders like: the core hears of the
                // end before, and another one takes its place.
                shutdown(kAnswers, SHUT_RDWR);
                _exit(EXIT_SUCCESS);
        }

private:
        bool wait() {
                const bool accepts = !pausing_ && has_room();
                const auto if_accepts = static_cast<short>(accepts ? POLLIN : 0);
                std::array<pollfd, 4> polled{pollfd{kAnswers, static_cast<short>(POLLIN | (report_ ? POLLOUT : 0)), 0},
                                             pollfd{kOrders, if_accepts, 0},
                                             pollfd{kBetween, static_cast<short>(discards_.empty() ? 0 : POLLOUT), 0},
                                             pollfd{labels_, if_accepts, 0}};
                const int ready = ppoll(polled.data(), polled.size(), pausing_ ? &kPause : nullptr, nullptr);
                if (ready < 0) {
                        return errno == EINTR;
                }
                pausing_ = false;
                if ((polled[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !obey()) {
                        return false;
                }
                send_report();
                if (accepts && polled[1].revents != 0) {
                        accept_some(kOrders);
                }
                if (accepts && polled[3].revents != 0) {
                        accept_some(kLabels);
                }
                if ((polled[2].revents & POLLOUT) != 0 && !discards_.empty()) {
                        pass_discards();
                }
                return true;
        }

        // --- new connections

        // With as many as there may be the core gives some up, and others wait in the kernel's queue for that moment.
        [[nodiscard]] bool has_room() const {
                return !report_ && discards_.size() < kMaxDiscardsWaiting && connections_.size() < kMaxAccepted;
        }

        void accept_some(int listener) {
                for (int i = 0; i < kAcceptsPerTurn && has_room(); i++) {
                        OwnedFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
                        if (!fd) {
                                // Whoever waits stays in the kernel's queue, which would wake the door for ever.
                                pausing_ = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
                                return;
                        }
                        admit(std::move(fd), listener == kLabels);
                }
        }

        void admit(OwnedFd fd, bool labels) {
                // In this order: a first message that was sent before this moment has the time of this look from now
                // on.
                const bool prepared = prepare_for_peeking(fd.get()).has_value();
                if (look_at_queue(fd.get()) == QueueState::kEnded) {
                        return;  // it has left, and left nothing
                }
                ucred connected{};
                socklen_t size = sizeof connected;
                if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &connected, &size) != 0) {
                        return discard({std::move(fd), connected.uid, 0});
                }
                const auto counted = per_uid_.find(connected.uid);
                const bool many =
                        connected.uid != 0 && counted != per_uid_.end() && counted->second >= kMaxConnectionsPerUid;
                if (const bool barred = barred_.contains(connected.uid); many || barred) {
                        return refuse(std::move(fd), connected.uid, barred ? barred_here_ : too_many_);
                }
                if (!prepared) {
                        return discard({std::move(fd), connected.uid, 0});
                }
                report_ = DoorReport{
                        .id = ++last_id_, .uid = connected.uid, .pid = connected.pid, .labels = labels ? 1U : 0U};
                per_uid_[connected.uid]++;
                connections_.emplace(last_id_, Accepted{std::move(fd), connected.uid});
                send_report();
        }

        // Whether it arrives does not matter, the connection ends here.
        void refuse(OwnedFd fd, uid_t uid, const std::string& why) {
                (void)send_record(fd.get(), why);
                discard({std::move(fd), uid, 0});
        }

        void send_report() {
                if (!report_) {
                        return;
                }
                const auto found = connections_.find(report_->id);
                if (found != connections_.end()) {
                        const int fd = found->second.fd.get();
                        const int errnum = send_bytes(kAnswers, as_bytes_of(*report_), std::span(&fd, 1));
                        if (errnum == EAGAIN || errnum == ENOBUFS || errnum == ENOMEM || errnum == ETOOMANYREFS) {
                                pausing_ = errnum != EAGAIN;
                                return;
                        }
                }
                report_.reset();
        }

        // --- what the core orders

        bool obey() {
                std::array<std::byte, kMaxDoorOrder> record;
                while (true) {
                        const ssize_t size = recv(kAnswers, record.data(), record.size(), MSG_DONTWAIT);
                        if (size < 0) {
                                return errno == EAGAIN || errno == EINTR;
                        }
                        DoorOrder order;
                        if (static_cast<std::size_t>(size) < sizeof order) {
                                return false;
                        }
                        std::memcpy(&order, record.data(), sizeof order);
                        if (order.count > kMaxDoorIds ||
                            static_cast<std::size_t>(size) != sizeof order + order.count * sizeof(std::uint64_t)) {
                                return false;
                        }
                        carry_out(order, record.data() + sizeof order);
                }
        }

        void carry_out(const DoorOrder& order, const std::byte* ids) {
                switch (order.kind) {
                case DoorOrderKind::kClose:
                case DoorOrderKind::kKeep:
                        for (std::uint32_t i = 0; i < order.count; i++) {
                                std::uint64_t id = 0;
                                std::memcpy(&id, ids + i * sizeof id, sizeof id);
                                end(id, order);
                        }
                        break;
                case DoorOrderKind::kForgive:
                        kept_from_hands_.erase(order.offender);
                        give_back([&](const Discard& one) { return one.offender == order.offender; });
                        break;
                case DoorOrderKind::kBar:
                        barred_.insert(order.uid);
                        keep_waiting();
                        break;
                case DoorOrderKind::kUnbar:
                        barred_.erase(order.uid);
                        give_back([&](const Discard& one) { return one.uid == order.uid || order.uid == kNobody; });
                        break;
                }
        }

        void end(std::uint64_t id, const DoorOrder& order) {
                const auto found = connections_.find(id);
                if (found == connections_.end()) {
                        return;
                }
                Discard discarded{std::move(found->second.fd), found->second.uid, order.offender};
                connections_.erase(found);
                if (const auto counted = per_uid_.find(discarded.uid); --counted->second == 0) {
                        per_uid_.erase(counted);
                }
                if (order.kind == DoorOrderKind::kKeep) {
                        kept_from_hands_.insert(order.offender);
                        keep_waiting();
                }
                discard(std::move(discarded), order.in_use != 0);
        }

        // --- closing

        // Here, where nothing lies in its queue; by a hand, where something does; and not for now, where the last hands
        // that closed things of the same sender have not come back.
        void discard(Discard one, bool in_use = false) {
                shutdown(one.fd.get(), SHUT_RDWR);  // nothing more comes into its queue
                if (!in_use && drop_plain_records(one.fd.get())) {
                        return;
                }
                if (is_kept(one)) {
                        kept_.push_back(std::move(one));
                } else {
                        discards_.push_back(std::move(one));
                }
        }

        [[nodiscard]] bool is_kept(const Discard& one) const {
                return barred_.contains(one.uid) || barred_.contains(kNobody) ||
                       kept_from_hands_.contains(one.offender);
        }

        // What was to be passed on before it was known.
        void keep_waiting() {
                const auto first = std::stable_partition(discards_.begin(), discards_.end(),
                                                         [&](const Discard& one) { return !is_kept(one); });
                std::move(first, discards_.end(), std::back_inserter(kept_));
                discards_.erase(first, discards_.end());
        }

        template <class Concerned>
        void give_back(const Concerned& concerned) {
                const auto first = std::stable_partition(kept_.begin(), kept_.end(), [&](const Discard& one) {
                        return !concerned(one) || is_kept(one);
                });
                std::move(first, kept_.end(), std::back_inserter(discards_));
                kept_.erase(first, kept_.end());
        }

        // In the order of their coming, those of one user that stand together in one record. A single one: the queue is
        // writable only while it is nearly empty, so that few wait there when their sender comes to be barred.
        void pass_discards() {
                const Discard& first = discards_.front();
                const Discarded head{
                        .uid = first.uid, .offender = first.offender, .door = door_, .number = last_number_ + 1};
                std::vector<int> fds;
                for (const Discard& one : discards_) {
                        if (fds.size() == kMaxDiscarded || one.uid != first.uid || one.offender != first.offender) {
                                break;
                        }
                        fds.push_back(one.fd.get());
                }
                if (send_bytes(kBetween, as_bytes_of(head), fds) != 0) {
                        return;  // all hands are at work
                }
                discards_.erase(discards_.begin(), discards_.begin() + static_cast<std::ptrdiff_t>(fds.size()));
                closed_.number = ++last_number_;
        }

        const std::size_t max_kept_;
        ClosedByDoor& closed_;
        const std::uint32_t door_;
        std::uint32_t last_number_ = 0;
        const std::string too_many_;
        const std::string barred_here_;
        std::uint64_t last_id_ = 0;
        std::unordered_map<std::uint64_t, Accepted> connections_;  // of which the core has a duplicate
        std::unordered_map<uid_t, std::size_t> per_uid_;
        std::optional<DoorReport> report_;  // for which the core's queue had no room
        std::set<uid_t> barred_;
        std::set<std::uint32_t> kept_from_hands_;  // offenders
        std::vector<Discard> kept_;
        std::deque<Discard> discards_;
        bool pausing_ = false;
        const int labels_;  // kLabels; -1: none
};

}  // namespace

void run_door(std::size_t max_fds, ClosedByDoor& closed, bool labels) {
        DoorProcess(max_fds, closed, labels).run();
}

}  // namespace sockbroker::hands
