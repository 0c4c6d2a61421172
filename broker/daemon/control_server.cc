// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/control_server.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <exception>

#include <fmt/format.h>

#include "broker/protocol/message.h"

namespace sockbroker {

// Reads a request, then writes its answer to the end before it reads the next: what a peer can make the broker keep
// is one record.
class ControlServer::Connection {
public:
        Connection(ControlServer& server, OwnedFd fd, uid_t uid) : server_(server), uid_(uid), fd_(std::move(fd)) {}

        [[nodiscard]] uid_t uid() const { return uid_; }

        [[nodiscard]] bool watch() {
                sd_event_source* source = nullptr;
                const int r = sd_event_add_io(
                        server_.event_, &source, fd_.get(), EPOLLIN,
                        [](sd_event_source*, int, std::uint32_t, void* self) {
                                static_cast<Connection*>(self)->ready();
                                return 0;
                        },
                        this);
                io_.reset(source);
                return r >= 0;
        }

private:
        // Deletes this connection where it ends: nothing may be touched afterwards.
        void ready() {
                bool goes_on = false;
                try {
                        goes_on = (answering_ || read_request()) && (!answering_ || write_answer());
                } catch (const std::exception&) {
                        // No exception may cross the C callback: rows that cannot be made cost this peer its
                        // connection.
                        goes_on = false;
                }
                if (!goes_on) {
                        server_.drop(this);
                }
        }

        [[nodiscard]] bool read_request() {
                auto message = receive(fd_.get());
                if (!message) {
                        return message.error().errnum == EAGAIN;
                }
                if (message->text.empty() && message->fds.empty() && !message->truncated) {
                        return false;  // end of file
                }
                answer_ = server_.broker_.handle(Channel::kControl, *message);
                answering_ = true;
                return true;
        }

        [[nodiscard]] bool write_answer() {
                while (!last_sent_) {
                        if (record_.empty()) {
                                next_record();
                        }
                        if (const auto sent = send_record(fd_.get(), record_); !sent) {
                                return sent.error().errnum == EAGAIN && wait_for_reader();
                        }
                        last_sent_ = is_last_;
                        record_.clear();
                }
                if (answer_.unloaded) {
                        server_.on_unloaded_();
                }
                answer_ = {};
                answering_ = is_last_ = last_sent_ = false;
                deadline_.reset();
                return sd_event_source_set_io_events(io_.get(), EPOLLIN) >= 0;
        }

        // Whole lines, as many as fit; then the RESULT= record.
        void next_record() {
                while (answer_.rows) {
                        auto lines = answer_.rows();
                        if (!lines) {
                                answer_.rows = nullptr;
                        } else if (record_.size() + lines->size() <= kMaxRecordBytes) {
                                record_ += *lines;
                        } else {
                                split(*lines);
                                return;
                        }
                }
                if (record_.empty()) {
                        record_ = format_result(answer_.code, answer_.message);
                        is_last_ = true;
                }
        }

        // Lines that came at once and do not fit: what fits goes into the record, the rest waits.
        void split(const std::string& lines) {
                const std::size_t room = kMaxRecordBytes - record_.size();
                const auto cut = lines.rfind('\n', room == 0 ? 0 : room - 1);
                const std::size_t fits = cut == std::string::npos || cut >= room ? 0 : cut + 1;
                record_ += lines.substr(0, fits);
                std::string rest = lines.substr(fits);
                auto more = std::move(answer_.rows);
                answer_.rows = [rest = std::move(rest), more = std::move(more), first = true]() mutable {
                        return std::exchange(first, false) ? std::optional(std::move(rest)) : more();
                };
        }

        [[nodiscard]] bool wait_for_reader() {
                deadline_.reset();
                sd_event_source* source = nullptr;
                const int r = sd_event_add_time_relative(
                        server_.event_, &source, CLOCK_MONOTONIC, kIdleReaderUsec, 0,
                        [](sd_event_source*, std::uint64_t, void* self) {
                                auto* connection = static_cast<Connection*>(self);
                                connection->server_.drop(connection);
                                return 0;
                        },
                        this);
                deadline_.reset(source);
                return r >= 0 && sd_event_source_set_io_events(io_.get(), EPOLLOUT) >= 0;
        }

        ControlServer& server_;
        const uid_t uid_;
        OwnedFd fd_;
        Answer answer_;
        std::string record_;
        bool answering_ = false;
        bool is_last_ = false;
        bool last_sent_ = false;
        OwnedSource deadline_;
        OwnedSource io_;
};

ControlServer::ControlServer(sd_event* event, OwnedFd fd, Broker& broker, std::function<void()> on_unloaded)
        : event_(event),
          broker_(broker),
          on_unloaded_(std::move(on_unloaded)),
          fd_(std::move(fd)),
          reserve_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {}

ControlServer::~ControlServer() = default;

Result<std::unique_ptr<ControlServer>> ControlServer::listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                             std::function<void()> on_unloaded) {
        std::unique_ptr<ControlServer> server(new ControlServer(event, std::move(fd), broker, std::move(on_unloaded)));
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, server->fd_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        static_cast<ControlServer*>(self)->accept_one();
                        return 0;
                },
                server.get());
        if (r < 0) {
                return fail(r, "cannot watch the control socket");
        }
        server->source_.reset(source);
        return server;
}

void ControlServer::accept_one() {
        OwnedFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!fd) {
                if (errno == EMFILE || errno == ENFILE) {
                        // Turn the peer away; a connection that stays in the queue would wake the loop for ever.
                        reserve_.reset();
                        OwnedFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)).reset();
                        reserve_.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
                }
                return;
        }
        // For counting only, never for judging: who connected is not who writes.
        ucred connected{};
        socklen_t size = sizeof connected;
        if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &connected, &size) != 0 ||
            !prepare_receiver(fd.get()).has_value()) {
                return;
        }
        const auto counted = per_uid_.find(connected.uid);
        const bool too_many =
                connected.uid != 0 && counted != per_uid_.end() && counted->second >= kMaxConnectionsPerUid;
        if (too_many || connections_.size() >= kMaxConnections) {
                // Whether it arrives does not matter, the connection ends here.
                static_cast<void>(send_record(
                        fd.get(),
                        format_result(ResultCode::kRateLimited,
                                      fmt::format("too many connections, a user may have {} and all together {}",
                                                  kMaxConnectionsPerUid, kMaxConnections))));
                return;
        }
        auto connection = std::make_unique<Connection>(*this, std::move(fd), connected.uid);
        if (!connection->watch()) {
                return;
        }
        per_uid_[connected.uid]++;
        auto* key = connection.get();
        connections_.emplace(key, std::move(connection));
}

void ControlServer::drop(Connection* connection) {
        const auto counted = per_uid_.find(connection->uid());
        if (counted != per_uid_.end() && --counted->second == 0) {
                per_uid_.erase(counted);
        }
        connections_.erase(connection);
}

}  // namespace sockbroker
