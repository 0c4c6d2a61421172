// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/route_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include <fmt/format.h>

namespace sockbroker {

namespace {

constexpr std::uint64_t kReconnectUsec = 1'000'000;
constexpr int kRecordsPerTurn = 8;  // of 54 KB: well below a millisecond

}  // namespace

RouteLink::RouteLink(sd_event* event, std::string path, Hooks hooks)
        : event_(event), path_(std::move(path)), hooks_(std::move(hooks)) {}

std::uint32_t RouteLink::tell(routes::Kind of, List list) {
        auto& state = kind(of);
        state.list = std::move(list);
        state.number = ++last_number_;
        if (fd_) {
                want_to_write(true);
        } else if (again_ == nullptr) {
                connect();
        }
        return state.number;
}

void RouteLink::leave() {
        kinds_ = {};
        going_.reset();
        again_.reset();
        io_.reset();
        fd_.reset();
        lost_told_ = false;
}

// A socket of systemd's is there although nobody serves: the first word starts the process.
void RouteLink::connect() {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path_.size() >= sizeof address.sun_path) {
                return disconnect("its path is too long for a socket");
        }
        path_.copy(address.sun_path, path_.size());
        OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
                return disconnect(std::strerror(errno));
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event_, &source, fd.get(), EPOLLIN | EPOLLOUT,
                [](sd_event_source*, int, std::uint32_t events, void* self) {
                        return guarded([&] {
                                auto* link = static_cast<RouteLink*>(self);
                                if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
                                        link->read_some();
                                }
                                if (link->fd_ && (events & EPOLLOUT) != 0) {
                                        link->write_some();
                                }
                        });
                },
                this);
        if (r < 0) {
                return disconnect(std::strerror(-r));
        }
        io_.reset(source);
        fd_ = std::move(fd);
        for (auto& state : kinds_) {
                state.sent = 0;
        }
}

void RouteLink::disconnect(const std::string& why) {
        going_.reset();
        io_.reset();
        fd_.reset();
        try_again();
        if (!std::exchange(lost_told_, true)) {
                hooks_.lost(why);
        }
}

void RouteLink::try_again() {
        sd_event_source* source = nullptr;
        again_.reset();
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, kReconnectUsec, 0,
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([&] {
                                auto* link = static_cast<RouteLink*>(self);
                                link->again_.reset();
                                link->connect();
                        });
                },
                this);
        again_.reset(r < 0 ? nullptr : source);
}

void RouteLink::want_to_write(bool want) {
        sd_event_source_set_io_events(io_.get(), EPOLLIN | (want ? std::uint32_t{EPOLLOUT} : 0U));
}

void RouteLink::write_some() {
        for (int i = 0; i < kRecordsPerTurn; i++) {
                if (!write_next()) {
                        return;
                }
        }
}

// False: not now.
bool RouteLink::write_next() {
        if (going_ == nullptr) {
                const auto due = std::ranges::find_if(kinds_, [](const OfKind& state) {
                        return state.list != nullptr && state.sent != state.number;
                });
                if (due == kinds_.end()) {
                        want_to_write(false);
                        return false;
                }
                going_ = std::make_unique<Going>(Going{.kind = static_cast<routes::Kind>(due - kinds_.begin()),
                                                       .list = due->list,
                                                       .number = due->number});
        }
        const auto left = std::span(*going_->list).subspan(going_->next);
        const auto part = left.first(std::min(left.size(), routes::kPrefixesInRecord));
        const bool at_end = going_->begun && part.empty();
        const std::string record = !going_->begun ? routes::encode_begin(going_->kind)
                                   : at_end       ? routes::encode_end(going_->kind, going_->number)
                                                  : routes::encode_prefixes(going_->kind, part);
        if (send(fd_.get(), record.data(), record.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
                if (errno != EAGAIN && errno != EINTR) {
                        disconnect(std::strerror(errno));
                }
                return false;
        }
        if (at_end) {
                kind(going_->kind).sent = going_->number;
                going_.reset();
        } else if (going_->begun) {
                going_->next += part.size();
        } else {
                going_->begun = true;
        }
        return true;
}

void RouteLink::read_some() {
        std::array<char, routes::kMaxRecord / 64> buffer{};
        while (fd_) {
                const auto size = recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
                if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
                        return;
                }
                const auto report = size > 0 ? routes::decode_report({buffer.data(), static_cast<std::size_t>(size)})
                                             : std::nullopt;
                if (!report) {
                        return disconnect(size > 0    ? "it is of another version"
                                          : size == 0 ? "it has ended"
                                                      : std::strerror(errno));
                }
                lost_told_ = false;
                hooks_.reported(*report);
        }
}

}  // namespace sockbroker
