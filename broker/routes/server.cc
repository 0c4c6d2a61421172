// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/server.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

#include "broker/base/capabilities.h"
#include "broker/base/event.h"
#include "broker/base/landlock.h"
#include "broker/routes/keeper.h"
#include "sandbox/compile.h"
#include "sandbox/parse.h"

namespace sockbroker::routes {

namespace {

constexpr std::string_view kProfile =
#include "broker/routes/routes_profile.inc"
        ;

// As the profile names them. A connection has one of two numbers: a new one comes before the old one goes.
constexpr int kListener = 3, kKernel = 4, kEvents = 5, kFirstConnection = 6, kLastConnection = 7;

constexpr std::int64_t kSettleUsec = 20'000;  // what others change often comes in pieces
constexpr std::int64_t kRestFactor = 4;       // of the time that the last look took
constexpr std::int64_t kRetryUsec = 5'000'000;
constexpr std::int64_t kIdleUsec = 1'000'000;
constexpr int kRecordsPerTurn = 64;

void log(int priority, const std::string& text) {
        const auto line = fmt::format("<{}>{}\n", priority, text);
        (void)!write(STDERR_FILENO, line.data(), line.size());
}

Result<OwnedFd> make_listener(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
                return fail(fmt::format("{} is too long for the path of a socket", path));
        }
        path.copy(address.sun_path, path.size());
        OwnedFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        (void)unlink(path.c_str());
        const auto before = umask(0177);
        const bool bound =
                listener && bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        umask(before);
        if (!bound || listen(listener.get(), 4) != 0) {
                return fail_errno(fmt::format("cannot listen at {}", path));
        }
        return listener;
}

Result<OwnedFd> open_listener(const std::string& path) {
        const int passed = sd_listen_fds(1);
        (void)close_range(static_cast<unsigned>(kListener + (passed > 0 ? 1 : 0)), ~0U, 0);
        if (passed <= 0) {
                return make_listener(path);
        }
        if (sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_SEQPACKET, 1) <= 0) {
                return fail("the socket that systemd has passed is not a listening ListenSequentialPacket=");
        }
        return OwnedFd(SD_LISTEN_FDS_START);
}

Result<sandbox::Profile> built_in_profile() {
        auto parsed = sandbox::parse_profile(
                "routes", {{"routes.profile", std::string(kProfile)}},
                [](const std::string&) { return Result<sandbox::ProfileFile>(fail("nothing is included")); });
        return parsed.profile ? Result<sandbox::Profile>(std::move(*parsed.profile))
                              : fail(parsed.errors.front().to_string());
}

Result<void> confine() {
        if (auto kept = keep_capabilities({CAP_NET_ADMIN}); !kept) {
                return kept;
        }
        // Where the kernel has no Landlock the filter holds: it has no call that opens a file.
        (void)restrict_files({});
        const auto profile = built_in_profile();
        if (!profile) {
                return std::unexpected(profile.error());
        }
        const auto filter = sandbox::compile(*profile);
        return filter ? filter->install() : std::unexpected(filter.error());
}

class Server {
public:
        // `may_end`: whoever comes later starts another one.
        Server(OwnedFd listener, bool may_end, KernelRoutes& kernel, RouteEvents& events, std::size_t most)
                : listener_(std::move(listener)), may_end_(may_end), events_(events), keeper_(kernel, most) {}

        Result<void> run() {
                std::int64_t idle_since = steady_usec();
                while (true) {
                        const auto now = steady_usec();
                        if (!is_unused()) {
                                idle_since = now;
                        } else if (now >= idle_since + kIdleUsec) {
                                return {};
                        }
                        if (follow_at_ != 0 && now >= follow_at_) {
                                follow();
                        }
                        wait(idle_since + kIdleUsec);
                }
        }

private:
        void wait(std::int64_t idle_until) {
                std::array<pollfd, 3> polled{pollfd{listener_.get(), POLLIN, 0}, pollfd{events_.fd(), POLLIN, 0},
                                             pollfd{connection_.get(), POLLIN, 0}};
                if (keeper_.wants_to_retry() && follow_at_ == 0) {
                        follow_at_ = steady_usec() + kRetryUsec;
                }
                std::int64_t until = follow_at_;
                if (is_unused()) {
                        until = until == 0 ? idle_until : std::min(until, idle_until);
                }
                const auto left = std::max<std::int64_t>(0, until - steady_usec());
                const int timeout = until == 0 ? -1 : static_cast<int>(left / 1000 + 1);
                if (poll(polled.data(), polled.size(), timeout) <= 0) {
                        return;
                }
                if (polled[2].revents != 0) {
                        hear();
                }
                if (polled[1].revents != 0) {
                        const auto seen = events_.read();
                        seen_.routes = seen_.routes || seen.routes;
                        seen_.addresses = seen_.addresses || seen.addresses;
                        if (seen.routes || seen.addresses) {
                                const auto at = std::max(steady_usec() + kSettleUsec, rest_until_);
                                follow_at_ = follow_at_ == 0 ? at : std::min(follow_at_, at);
                        }
                }
                if (polled[0].revents != 0) {
                        accept_one();
                }
        }

        [[nodiscard]] bool is_unused() const { return may_end_ && !connection_ && keeper_.is_idle(); }

        // The newer broker counts: one that was replaced may not have ended yet.
        void accept_one() {
                OwnedFd fresh(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
                if (fresh && fresh.get() >= kFirstConnection && fresh.get() <= kLastConnection) {
                        keeper_.forget_unfinished();
                        connection_ = std::move(fresh);
                }
        }

        void hang_up(const char* why) {
                if (why != nullptr) {
                        log(4, fmt::format("the broker is not heard any more: {}", why));
                }
                keeper_.forget_unfinished();
                connection_.reset();
        }

        void hear() {
                for (int i = 0; i < kRecordsPerTurn && connection_; i++) {
                        const auto size =
                                recv(connection_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
                        if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
                                return;
                        }
                        if (size <= 0) {
                                return hang_up(nullptr);
                        }
                        if (static_cast<std::size_t>(size) > buffer_.size()) {
                                return hang_up("a record is too long");
                        }
                        auto order = decode_order({buffer_.data(), static_cast<std::size_t>(size)});
                        if (!order) {
                                return hang_up("a record is none of this version");
                        }
                        const auto taken = keeper_.take(std::move(*order));
                        if (!taken.good) {
                                return hang_up("a list is out of order or too long");
                        }
                        if (taken.report) {
                                tell(*taken.report);
                        }
                }
        }

        void follow() {
                follow_at_ = 0;
                const auto began = steady_usec();
                for (const auto& report : keeper_.follow(std::exchange(seen_, {}))) {
                        tell(report);
                }
                const auto ended = steady_usec();
                rest_until_ = ended + (ended - began) * kRestFactor;
        }

        void tell(const Report& report) {
                if (const auto& failure = keeper_.failure()) {
                        log(3, failure->text());
                }
                const auto record = encode(report);
                if (connection_ &&
                    send(connection_.get(), record.data(), record.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
                        hang_up(nullptr);  // it does not read
                }
        }

        OwnedFd listener_;
        bool may_end_;
        RouteEvents& events_;
        Keeper keeper_;
        OwnedFd connection_;
        RouteEvents::Seen seen_;
        std::int64_t follow_at_ = 0;  // 0: nothing is due
        std::int64_t rest_until_ = 0;
        std::array<char, kMaxRecord> buffer_{};
};

}  // namespace

Result<std::string> describe_routes_filter() {
        const auto profile = built_in_profile();
        return profile ? Result<std::string>(sandbox::dump(*profile)) : std::unexpected(profile.error());
}

Result<void> serve(const ServerOptions& options) {
        const bool passed = sd_listen_fds(0) > 0;
        auto listener = open_listener(options.socket_path);
        if (!listener) {
                return std::unexpected(listener.error());
        }
        auto kernel = KernelRoutes::open(options.numbers);
        if (!kernel) {
                return std::unexpected(kernel.error());
        }
        auto events = RouteEvents::open(options.numbers, kernel->port());
        if (!events) {
                return std::unexpected(events.error());
        }
        if (listener->get() != kListener || kernel->fd() != kKernel || events->fd() != kEvents) {
                return fail("standard input, output and error must be open");
        }
        if (auto confined = confine(); !confined) {
                return fail(confined.error().errnum,
                            "cannot give up what it does not need, and does not serve with it: " +
                                    confined.error().message);
        }
        return Server(std::move(*listener), passed, *kernel, *events, options.most).run();
}

}  // namespace sockbroker::routes
