// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/door.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

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
        if (const int errnum = zygote.fork(child, Role::kDoor, std::array{theirs.get(), control_}); errnum != 0) {
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
        pending_.clear();
        source_.reset();  // before the socket that it watches: of one that is closed the event loop is never told
        socket_ = std::move(ours);
        source_.reset(source);
        for (const uid_t uid : barred_) {
                order({.kind = DoorOrderKind::kBar, .uid = uid}, {});
        }
        return {};
}

void Door::ready(std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) {
                flush();
        }
        if (socket_ && (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
                receive_some();
        }
}

void Door::receive_some() {
        for (int i = 0; i < kConnectionsPerTurn && socket_; i++) {
                DoorReport report;
                iovec vector = {.iov_base = &report, .iov_len = sizeof report};
                // Room for one: it accepts, and cannot receive a descriptor from anybody.
                alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
                msghdr header{
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                const ssize_t size = recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
                        return;
                }
                OwnedFd fd;
                const cmsghdr* part = size > 0 ? CMSG_FIRSTHDR(&header) : nullptr;
                if (part != nullptr && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS &&
                    part->cmsg_len == CMSG_LEN(sizeof(int))) {
                        int number = -1;
                        std::memcpy(&number, CMSG_DATA(part), sizeof number);
                        fd.reset(number);
                }
                if (size != sizeof report || report.id >> kSerialBits != 0) {
                        end();
                        return;
                }
                report.id |= generation_ << kSerialBits;
                if (!fd) {  // no descriptor left in this process: the door keeps its own, and ends the connection
                        close(report.id, 0, false, false);
                        continue;
                }
                hooks_.connected({report.id, report.uid, report.pid, std::move(fd)});
        }
}

void Door::end() {
        source_.reset();
        socket_.reset();
        pending_.clear();
        hooks_.ended();
}

void Door::close(std::uint64_t id, std::uint32_t offender, bool keep, bool in_use) {
        const DoorOrder wanted{.kind = keep ? DoorOrderKind::kKeep : DoorOrderKind::kClose,
                               .offender = offender,
                               .in_use = in_use ? 1U : 0U};
        id &= (std::uint64_t{1} << kSerialBits) - 1;
        const auto fits = [&](const Pending& last) {
                return last.order.kind == wanted.kind && last.order.offender == offender &&
                       last.order.in_use == wanted.in_use && last.ids.size() < kMaxDoorIds;
        };
        if (!pending_.empty() && fits(pending_.back())) {
                pending_.back().ids.push_back(id);
        } else {
                order(wanted, {id});
        }
}

void Door::forgive(std::uint32_t offender) {
        order({.kind = DoorOrderKind::kForgive, .offender = offender}, {});
}

void Door::bar(uid_t uid) {
        if (barred_.insert(uid).second) {
                order({.kind = DoorOrderKind::kBar, .uid = uid}, {});
        }
}

void Door::unbar(uid_t uid) {
        if (barred_.erase(uid) != 0) {
                order({.kind = DoorOrderKind::kUnbar, .uid = uid}, {});
        }
}

// Sent at the end of the turn, with all others of the turn.
void Door::order(const DoorOrder& order, std::vector<std::uint64_t> ids) {
        if (!socket_) {
                return;  // the next one begins with nothing
        }
        pending_.push_back({order, std::move(ids)});
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
        while (!pending_.empty() && socket_) {
                Pending& next = pending_.front();
                next.order.count = static_cast<std::uint32_t>(next.ids.size());
                std::array<std::byte, kMaxDoorOrder> record;
                std::memcpy(record.data(), &next.order, sizeof next.order);
                std::memcpy(record.data() + sizeof next.order, next.ids.data(), next.ids.size() * sizeof next.ids[0]);
                const int errnum =
                        send_bytes(socket_.get(),
                                   std::span(record).first(sizeof next.order + next.ids.size() * sizeof next.ids[0]));
                if (errnum == EAGAIN) {
                        break;
                }
                pending_.pop_front();  // any other error: it is gone, which is heard
        }
        if (source_ != nullptr) {
                (void)sd_event_source_set_io_events(source_.get(), pending_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
        }
}

}  // namespace sockbroker::hands
