// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door_process.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/hands/discards.h"
#include "broker/hands/door_refusals.h"
#include "broker/hands/queue_state.h"
#include "broker/hands/waiting_room.h"
#include "broker/hands/wire.h"
#include "broker/protocol/message.h"
#include "broker/protocol/peek.h"

namespace sockbroker::hands {

namespace {

constexpr int kAcceptsPerTurn = 64;                             // between two looks at what the core orders
constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 50'000'000};  // for want of something, at most

// What a descriptor says is ready fails for want of these, and would at once again.
bool is_want(int errnum) {
        return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM || errnum == ETOOMANYREFS;
}

timespec to_timespec(std::int64_t usec) {
        return {.tv_sec = usec / 1'000'000, .tv_nsec = usec % 1'000'000 * 1'000};
}

struct Accepted {
        OwnedFd fd;
        uid_t uid = 0;
};

class DoorProcess {
public:
        DoorProcess(std::size_t max_fds, ClosedByDoor& closed, bool labels)
                : max_waiting_(max_fds / 2),
                  waiting_(max_fds / 4),
                  closed_(closed),
                  door_(closed.door),
                  said_{format_result(ResultCode::kRateLimited,
                                      fmt::format("too many connections, a user may have {}, and {} that wait",
                                                  kMaxConnectionsPerUid, WaitingRoom::kMaxOfUser)),
                        format_result(
                                ResultCode::kRateLimited,
                                "too many connections of this user wait to be closed, with descriptors that he has "
                                "sent"),
                        format_result(ResultCode::kRateLimited,
                                      "descriptors that this user has sent keep processes of the broker waiting: "
                                      "no connection of his is taken until they do not")},
                  labels_(labels ? kLabels : -1) {}

        void run() {
                while (wait() && discards_.size() < max_waiting_) {
                }
                tell_refusals();
                // What waits is closed with it, which may take as long as its senders like: another one takes its place
                // before. Until the core has heard of it, it closes its own copies because these are here.
                shutdown(kAnswers, SHUT_WR);
                pollfd heard{.fd = kAnswers, .events = 0, .revents = 0};  // hung up
                while (ppoll(&heard, 1, nullptr, nullptr) < 0 && errno == EINTR) {
                }
                _exit(EXIT_SUCCESS);
        }

private:
        bool wait() {
                const bool accepts = !pausing_ && has_room();
                const auto if_accepts = static_cast<short>(accepts ? POLLIN : 0);
                const auto if_discards = static_cast<short>(!pausing_ && discards_.has_next() ? POLLOUT : 0);
                const auto refusals_due = refusals_.due_in(steady_usec());
                const bool speaks = report_ || refusals_due == 0;
                const auto if_report = static_cast<short>(!pausing_ && speaks ? POLLOUT : 0);
                std::array<pollfd, 4> polled{pollfd{kAnswers, static_cast<short>(POLLIN | if_report), 0},
                                             pollfd{kOrders, if_accepts, 0}, pollfd{kBetween, if_discards, 0},
                                             pollfd{labels_, if_accepts, 0}};
                const timespec until_due = to_timespec(refusals_due.value_or(0));
                const timespec* const patience = pausing_                            ? &kPause
                                                 : refusals_due && *refusals_due > 0 ? &until_due
                                                                                     : nullptr;
                const int ready = ppoll(polled.data(), polled.size(), patience, nullptr);
                if (ready < 0) {
                        return errno == EINTR;
                }
                pausing_ = false;
                if ((polled[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !obey()) {
                        return false;
                }
                send_report();
                if (refusals_.due_in(steady_usec()) == 0) {
                        tell_refusals();
                }
                report_waiting();
                if (accepts && polled[1].revents != 0) {
                        accept_some(kOrders);
                }
                if (accepts && polled[3].revents != 0) {
                        accept_some(kLabels);
                }
                if ((polled[2].revents & POLLOUT) != 0 && discards_.has_next()) {
                        pass_discards();
                }
                return true;
        }

        // --- new connections

        // With as many as there may be the core gives some up, and others wait in the kernel's queue for that moment.
        // What is to be closed, which may take long, keeps nobody out.
        [[nodiscard]] bool has_room() const { return !report_ && connections_.size() < kMaxAccepted; }

        void accept_some(int listener) {
                for (int i = 0; i < kAcceptsPerTurn && has_room(); i++) {
                        OwnedFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
                        if (!fd) {
                                // Whoever waits stays in the kernel's queue, which would wake the door for ever.
                                pausing_ = is_want(errno);
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
                        return discard(std::move(fd), connected.uid);
                }
                if (const auto why = why_refused(connected.uid)) {
                        return refuse(std::move(fd), connected.uid, *why);
                }
                if (!prepared) {
                        return discard(std::move(fd), connected.uid);
                }
                WaitingRoom::Guest guest{.fd = std::move(fd), .pid = connected.pid, .labels = labels};
                if (!has_all(connected.uid)) {
                        return report(connected.uid, std::move(guest));
                }
                if (!waiting_.has_room(connected.uid)) {
                        return refuse(std::move(guest.fd), connected.uid, DoorRefusal::kTooMany);
                }
                waiting_.add(connected.uid, std::move(guest));
        }

        [[nodiscard]] std::optional<DoorRefusal> why_refused(uid_t uid) const {
                if (discards_.is_barred(uid)) {
                        return DoorRefusal::kBarred;
                }
                return uid != 0 && discards_.has_too_many(uid) ? std::optional(DoorRefusal::kTooManyClosing)
                                                               : std::nullopt;
        }

        // As many connections as a user may have.
        [[nodiscard]] bool has_all(uid_t uid) const {
                const auto counted = per_uid_.find(uid);
                return uid != 0 && counted != per_uid_.end() && counted->second >= kMaxConnectionsPerUid;
        }

        // The core is told of it.
        void report(uid_t uid, WaitingRoom::Guest guest) {
                report_ = DoorReport{.id = ++last_id_, .uid = uid, .pid = guest.pid, .labels = guest.labels ? 1U : 0U};
                per_uid_[uid]++;
                connections_.emplace(last_id_, Accepted{std::move(guest.fd), uid});
                send_report();
        }

        // One of those that wait, for each that has ended.
        void report_waiting() {
                while (has_room() && !ended_of_.empty()) {
                        const uid_t uid = ended_of_.front();
                        if (has_all(uid)) {
                                ended_of_.pop_front();
                                continue;
                        }
                        std::optional<WaitingRoom::Guest> guest = waiting_.take(uid);
                        if (!guest) {
                                ended_of_.pop_front();
                        } else if (const auto why = why_refused(uid)) {
                                refuse(std::move(guest->fd), uid, *why);
                        } else if (look_at_queue(guest->fd.get()) != QueueState::kEnded) {
                                report(uid, std::move(*guest));
                        }
                }
        }

        // Whether it arrives does not matter, the connection ends here.
        void refuse(OwnedFd fd, uid_t uid, DoorRefusal why) {
                (void)send_record(fd.get(), said_.at(static_cast<std::size_t>(why)));
                discard(std::move(fd), uid);
                refusals_.count(uid, why, steady_usec());
        }

        // To the core, as far as it has room.
        void tell_refusals() {
                while (const auto next = refusals_.next()) {
                        const int errnum = send_bytes(kAnswers, as_bytes_of(*next));
                        if (errnum == EAGAIN || is_want(errnum)) {
                                pausing_ = is_want(errnum);
                                return;
                        }
                        refusals_.told();
                }
        }

        void send_report() {
                if (!report_) {
                        return;
                }
                const auto found = connections_.find(report_->id);
                if (found != connections_.end()) {
                        const int fd = found->second.fd.get();
                        const int errnum = send_bytes(kAnswers, as_bytes_of(*report_), std::span(&fd, 1));
                        if (errnum == EAGAIN || is_want(errnum)) {
                                pausing_ = is_want(errnum);
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
                        discards_.forgive(order.offender);
                        break;
                case DoorOrderKind::kBar:
                        discards_.bar(order.uid);
                        break;
                case DoorOrderKind::kUnbar:
                        discards_.unbar(order.uid);
                        break;
                }
        }

        void end(std::uint64_t id, const DoorOrder& order) {
                const auto found = connections_.find(id);
                if (found == connections_.end()) {
                        return;
                }
                Accepted ended = std::move(found->second);
                connections_.erase(found);
                if (const auto counted = per_uid_.find(ended.uid); --counted->second == 0) {
                        per_uid_.erase(counted);
                }
                if (waiting_.has(ended.uid)) {
                        ended_of_.push_back(ended.uid);
                }
                if (order.kind == DoorOrderKind::kKeep) {
                        discards_.keep(order.offender);
                }
                discard(std::move(ended.fd), ended.uid, order.offender, order.in_use != 0);
        }

        // --- closing

        // Here, where nothing lies in its queue; by a hand, where something does.
        void discard(OwnedFd fd, uid_t uid, std::uint32_t offender = 0, bool in_use = false) {
                shutdown(fd.get(), SHUT_RDWR);  // nothing more comes into its queue
                if (in_use || !drop_plain_records(fd.get())) {
                        discards_.add(uid, offender, std::move(fd));
                }
        }

        // One record: the queue is writable only while it is nearly empty, so that few wait there when their sender
        // comes to be barred.
        void pass_discards() {
                const Discards::Batch batch = discards_.next();
                const Discarded head{
                        .uid = batch.uid, .offender = batch.offender, .door = door_, .number = last_number_ + 1};
                if (const int errnum = send_bytes(kBetween, as_bytes_of(head), batch.connections); errnum != 0) {
                        pausing_ = is_want(errnum);
                        return;  // all hands are at work
                }
                discards_.sent(batch);
                closed_.number = ++last_number_;
        }

        const std::size_t max_waiting_;
        WaitingRoom waiting_;
        ClosedByDoor& closed_;
        const std::uint32_t door_;
        std::uint32_t last_number_ = 0;
        const std::array<std::string, kDoorRefusals> said_;  // to those that are refused
        DoorRefusals refusals_;
        std::uint64_t last_id_ = 0;
        std::unordered_map<std::uint64_t, Accepted> connections_;  // of which the core has a duplicate
        std::unordered_map<uid_t, std::size_t> per_uid_;
        std::deque<uid_t> ended_of_;        // whose places others of theirs may take
        std::optional<DoorReport> report_;  // for which the core's queue had no room
        Discards discards_;
        bool pausing_ = false;
        const int labels_;  // kLabels; -1: none
};

}  // namespace

void run_door(std::size_t max_fds, ClosedByDoor& closed, bool labels) {
        DoorProcess(max_fds, closed, labels).run();
}

}  // namespace sockbroker::hands
