// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/notifier.h"

#include <sys/epoll.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <string_view>
#include <utility>

#include "broker/hands/wire.h"
#include "broker/holds/fd_store.h"

namespace sockbroker {

namespace {

constexpr std::string_view kAlive = "WATCHDOG=1";
constexpr std::uint64_t kSignsPerSpan = 3;

}  // namespace

Result<std::unique_ptr<Notifier>> Notifier::start(sd_event* event, OwnedFd socket) {
        std::unique_ptr<Notifier> notifier(new Notifier(std::move(socket)));
        if (!notifier->socket_) {
                return notifier;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, notifier->socket_.get(), EPOLLOUT,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        static_cast<Notifier*>(self)->flush();
                        return 0;
                },
                notifier.get());
        notifier->room_.reset(r < 0 ? nullptr : source);
        if (r < 0 || sd_event_source_set_enabled(source, SD_EVENT_OFF) < 0) {
                return fail(r, "cannot watch the socket of the manager ($NOTIFY_SOCKET)");
        }
        if (auto served = notifier->serve_watchdog(event); !served) {
                return std::unexpected(served.error());
        }
        return notifier;
}

// As sd_event_set_watchdog(3), which waits. A loop that hangs gives no sign.
Result<void> Notifier::serve_watchdog(sd_event* event) {
        std::uint64_t span = 0;
        if (sd_watchdog_enabled(0, &span) <= 0) {
                return {};
        }
        watchdog_usec_ = std::max<std::uint64_t>(span / kSignsPerSpan, 1);
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                event, &source, CLOCK_MONOTONIC, 0, watchdog_usec_ / 4,
                [](sd_event_source* timer, std::uint64_t, void* self) {
                        auto* notifier = static_cast<Notifier*>(self);
                        if (std::ranges::find(notifier->waiting_, kAlive) == notifier->waiting_.end()) {
                                notifier->say(std::string(kAlive));
                        }
                        (void)sd_event_source_set_time_relative(timer, notifier->watchdog_usec_);
                        (void)sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
                        return 0;
                },
                this);
        watchdog_.reset(r < 0 ? nullptr : source);
        if (r < 0 || sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT) < 0) {
                return fail(r, "cannot serve the watchdog of systemd");
        }
        return {};
}

void Notifier::say(std::string text) noexcept {
        if (!socket_) {
                return;
        }
        (void)succeeds([&] { waiting_.push_back(std::move(text)); });
        if (waiting_.size() > kMaxWaiting) {
                waiting_.pop_front();
        }
        flush();
}

// To whoever listens there now: the manager that listened at the start may have gone, and another one come.
int Notifier::send(const std::string& text) const noexcept {
        const auto bytes = std::as_bytes(std::span(text));
        int errnum = hands::send_bytes(socket_.get(), bytes);
        if (errnum == ECONNREFUSED || errnum == ECONNRESET || errnum == ENOTCONN) {
                (void)succeeds([&] {  // why nobody can be reached is a text, for which memory may not suffice
                        if (reach_manager(socket_.get())) {
                                errnum = hands::send_bytes(socket_.get(), bytes);
                        }
                });
        }
        return errnum;
}

// What fails for another reason than want of room is lost, as with sd_notify(3).
void Notifier::flush() noexcept {
        while (!waiting_.empty()) {
                const int errnum = send(waiting_.front());
                if (errnum == EAGAIN || errnum == ENOBUFS || errnum == ENOMEM) {
                        break;
                }
                waiting_.pop_front();
        }
        (void)sd_event_source_set_enabled(room_.get(), waiting_.empty() ? SD_EVENT_OFF : SD_EVENT_ON);
}

}  // namespace sockbroker
