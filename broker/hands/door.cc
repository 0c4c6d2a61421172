// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace sockbroker::hands {

namespace {

constexpr int kConnectionsPerTurn = 32;

}  // namespace

Result<void> Door::open(const Zygote& zygote, std::uint32_t child) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
                return fail_errno("cannot make a socket pair for the process that accepts connections");
        }
        OwnedFd ours(pair[0]);
        const OwnedFd theirs(pair[1]);
        if (const int errnum = zygote.fork(child, Role::kDoor, std::array{theirs.get(), control_, -1, labels_});
            errnum != 0) {
                return fail(errnum, "cannot have the process made that accepts connections");
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event_, &source, ours.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t events, void* self) {
                        return guarded([&] { static_cast<Door*>(self)->ready(events); });
                },
                this);
        if (r < 0) {
                return fail(r, "cannot watch the process that accepts connections");
        }
        generation_++;
        closing_.clear();
        open_ = 0;
        kept_.clear();
        std::erase_if(bars_, [](const auto& entry) { return !entry.second.wanted; });
        for (auto& [uid, bar] : bars_) {
                bar.told = false;
        }
        source_.reset();  // before the socket that it watches: of one that is closed the event loop is never told
        socket_ = std::move(ours);
        source_.reset(source);
        flush_soon();
        return {};
}

// One that ends by itself says so before it closes anything, and waits until it is heard.
bool Door::is_alive() const {
        pollfd polled{.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
        constexpr timespec kNow{};
        return socket_ && ppoll(&polled, 1, &kNow, nullptr) == 0;
}

void Door::ready(std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) {
                flush();
        }
        if (socket_ && (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
                (void)receive_some();
        }
}

void Door::finish() {
        while (socket_ && receive_some()) {
        }
}

bool Door::receive_some() {
        for (int i = 0; i < kConnectionsPerTurn && socket_; i++) {
                if (const auto needed = open_ + closing_.size() + 1; closing_.capacity() < needed) {
                        closing_.reserve(2 * needed);  // before it comes: nothing is lost where that fails
                }
                std::array<std::byte, sizeof(DoorReport)> record;
                iovec vector = {.iov_base = record.data(), .iov_len = record.size()};
                // Room for one: it accepts, and cannot receive a descriptor from anybody.
                alignas(cmsghdr) char control[CMSG_LEN(sizeof(int))];  // CMSG_SPACE would have room for two
                msghdr header{
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                const ssize_t size = recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
                        return false;
                }
                if (size < 0 && errno == ECONNRESET) {
                        continue;  // told once: it has ended with orders unread, and what it had sent is here still
                }
                OwnedFd fd;
                const cmsghdr* part = size > 0 ? CMSG_FIRSTHDR(&header) : nullptr;
                if (part != nullptr && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
                    part->cmsg_len == CMSG_LEN(sizeof(int))) {
                        int number = -1;
                        std::memcpy(&number, CMSG_DATA(part), sizeof number);
                        fd.reset(number);
                }
                const auto length = static_cast<std::size_t>(std::max<ssize_t>(size, 0));
                if (!take(std::span(record).first(length), std::move(fd))) {
                        end();
                        return false;
                }
        }
        return true;
}

bool Door::take(std::span<const std::byte> record, OwnedFd fd) {
        if (const auto refused = parse_refused_report(record)) {
                (void)succeeds([&] { hooks_.refused(*refused); });
                return !fd;
        }
        DoorReport report;
        if (record.size() != sizeof report) {
                return false;
        }
        std::memcpy(&report, record.data(), sizeof report);
        if (report.id >> kSerialBits != 0) {
                return false;
        }
        report.id |= generation_ << kSerialBits;
        open_++;
        // No descriptor left in this process, or no memory: the door keeps its own, and ends the connection.
        if (!fd || !succeeds([&] {
                    hooks_.connected({report.id, report.uid, report.pid, report.labels != 0, std::move(fd)});
            })) {
                close(report.id, 0, false, false);
        }
        return true;
}

void Door::end() {
        source_.reset();
        socket_.reset();
        closing_.clear();
        hooks_.ended();
}

void Door::close(std::uint64_t id, std::uint32_t offender, bool keep, bool in_use) noexcept {
        if (keep) {
                keep = succeeds([&] { kept_[offender] = false; });
        }
        open_--;
        closing_.push_back({id & ((std::uint64_t{1} << kSerialBits) - 1), offender, keep, in_use});
        flush_soon();
}

void Door::bar(uid_t uid) noexcept {
        (void)succeeds([&] { bars_[uid].wanted = true; });
        flush_soon();
}

// At the end of the turn, with all else of the turn.
void Door::flush_soon() noexcept {
        if (!socket_) {
                return;  // the next one begins with nothing
        }
        if (flushing_ != nullptr) {
                (void)sd_event_source_set_enabled(flushing_.get(), SD_EVENT_ONESHOT);
                return;
        }
        sd_event_source* source = nullptr;
        if (sd_event_add_defer(
                    event_, &source,
                    [](sd_event_source*, void* self) { return guarded([&] { static_cast<Door*>(self)->flush(); }); },
                    this) < 0) {
                return flush();
        }
        flushing_.reset(source);
}

void Door::flush() {
        if (!socket_) {
                return;
        }
        const bool all = say_bars() && say_closings() && say_ends();
        if (source_ != nullptr) {
                (void)sd_event_source_set_io_events(source_.get(), all ? EPOLLIN : EPOLLIN | EPOLLOUT);
        }
}

bool Door::say(DoorOrder order, std::span<const std::uint64_t> ids) {
        order.count = static_cast<std::uint32_t>(ids.size());
        std::array<std::byte, kMaxDoorOrder> record;
        std::memcpy(record.data(), &order, sizeof order);
        if (!ids.empty()) {
                std::memcpy(record.data() + sizeof order, ids.data(), ids.size_bytes());
        }
        const int errnum = send_bytes(socket_.get(), std::span(record).first(sizeof order + ids.size_bytes()));
        // Any other error: it is gone, which is heard.
        return errnum != EAGAIN && errnum != ENOBUFS && errnum != ENOMEM;
}

bool Door::say_bars() {
        for (auto& [uid, bar] : bars_) {
                if (bar.wanted && !bar.told) {
                        if (!say({.kind = DoorOrderKind::kBar, .uid = uid})) {
                                return false;
                        }
                        bar.told = true;
                }
        }
        return true;
}

bool Door::say_closings() {
        std::size_t said = 0;
        bool room = true;
        while (said < closing_.size()) {
                const Closing& first = closing_[said];
                std::array<std::uint64_t, kMaxDoorIds> ids;
                std::size_t count = 0;
                while (said + count < closing_.size() && count < ids.size() &&
                       closing_[said + count].offender == first.offender && closing_[said + count].keep == first.keep &&
                       closing_[said + count].in_use == first.in_use) {
                        ids.at(count) = closing_[said + count].id;
                        count++;
                }
                room = say({.kind = first.keep ? DoorOrderKind::kKeep : DoorOrderKind::kClose,
                            .offender = first.offender,
                            .in_use = first.in_use ? 1U : 0U},
                           std::span(ids).first(count));
                if (!room) {
                        break;
                }
                said += count;
        }
        closing_.erase(closing_.begin(), closing_.begin() + static_cast<std::ptrdiff_t>(said));
        return room;
}

bool Door::say_ends() {
        for (auto at = bars_.begin(); at != bars_.end();) {
                if (at->second.wanted) {
                        ++at;
                        continue;
                }
                if (at->second.told && !say({.kind = DoorOrderKind::kUnbar, .uid = at->first})) {
                        return false;
                }
                at = bars_.erase(at);
        }
        for (auto at = kept_.begin(); at != kept_.end();) {
                if (!at->second) {
                        ++at;
                        continue;
                }
                if (!say({.kind = DoorOrderKind::kForgive, .offender = at->first})) {
                        return false;
                }
                at = kept_.erase(at);
        }
        return true;
}

}  // namespace sockbroker::hands
