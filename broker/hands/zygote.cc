// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/zygote.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "broker/hands/zygote_process.h"
#include "broker/helper/helper.h"
#include "broker/protocol/socket_options.h"

namespace sockbroker::hands {

namespace {

constexpr int kStartMsec = 10'000;

ssize_t receive_report(int socket, ZygoteReport& report) {
        // No room for control data: nothing but bytes can come in.
        std::array<std::byte, sizeof report + 1> bytes;
        const ssize_t size = recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (size <= 0) {
                return size;
        }
        const auto parsed = parse_zygote_report({bytes.data(), static_cast<std::size_t>(size)});
        report = parsed.value_or(ZygoteReport{});
        return parsed ? size : 0;
}

}  // namespace

Result<std::unique_ptr<Zygote>> Zygote::start(std::uint64_t netns_cookie) {
        auto socket =
                start_helper("sb-zygote", [netns_cookie](OwnedFd core) { run_zygote(std::move(core), netns_cookie); });
        if (!socket) {
                return std::unexpected(socket.error());
        }
        const int off = 0;
        (void)setsockopt(socket->get(), SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off);  // from 6.16
        pollfd polled{socket->get(), POLLIN, 0};
        ZygoteReport report;
        while (poll(&polled, 1, kStartMsec) < 0 && errno == EINTR) {
        }
        if (receive_report(socket->get(), report) <= 0 || report.kind != ZygoteReportKind::kClosed) {
                return fail(
                        "the process that makes the broker's hands did not start: it needs seccomp "
                        "(CONFIG_SECCOMP_FILTER, and a filter around the broker that allows fork(2) and "
                        "prctl(2)) and room in TasksMax=");
        }
        return std::unique_ptr<Zygote>(new Zygote(std::move(*socket), report.value));
}

Result<void> Zygote::watch(sd_event* event, Hooks hooks) {
        hooks_ = std::move(hooks);
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, socket_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        return guarded([&] { static_cast<Zygote*>(self)->receive(); });
                },
                this);
        if (r < 0) {
                return fail(r, "cannot watch the process that makes the broker's hands");
        }
        source_.reset(source);
        return {};
}

void Zygote::receive() {
        ZygoteReport report;
        while (true) {
                const ssize_t size = receive_report(socket_.get(), report);
                if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
                        return;
                }
                if (size <= 0) {
                        source_.reset();
                        hooks_.died();
                        return;
                }
                switch (report.kind) {
                case ZygoteReportKind::kForked:
                        hooks_.forked(report.child, report.value, 0);
                        break;
                case ZygoteReportKind::kFailed:
                        hooks_.forked(report.child, 0, report.value);
                        break;
                case ZygoteReportKind::kExited:
                        hooks_.exited(report.child);
                        break;
                case ZygoteReportKind::kClosed:
                        break;
                }
        }
}

int Zygote::fork(std::uint32_t child, Role role, std::span<const int> fds, bool for_the_door) const {
        ZygoteOrder order{.kind = ZygoteOrderKind::kFork, .child = child, .role = role, .for_the_door = for_the_door};
        std::array<int, kMaxGiven> attached;
        std::size_t count = 0;
        for (std::size_t i = 0; i < std::min(fds.size(), attached.size()); i++) {
                if (fds[i] >= 0) {
                        order.fds = static_cast<std::uint8_t>(order.fds | 1U << i);
                        attached.at(count++) = fds[i];
                }
        }
        return send_bytes(socket_.get(), as_bytes_of(order), std::span(attached).first(count));
}

void Zygote::kill(std::uint32_t child) const {
        // Its queue is never full: it reads faster than hands can be left behind.
        (void)send_bytes(socket_.get(), as_bytes_of(ZygoteOrder{.kind = ZygoteOrderKind::kKill, .child = child}));
}

}  // namespace sockbroker::hands
