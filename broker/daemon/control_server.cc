// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/control_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "broker/protocol/message.h"

namespace sockbroker {

namespace {

// Processor time of this thread: when others keep it from running, that is nobody's fault here.
std::int64_t own_usec() {
        timespec time{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return time.tv_sec * std::int64_t{1'000'000} + time.tv_nsec / 1000;
}

}  // namespace

// Reads a request, then writes its answer to the end before it reads the next: what a peer can make the broker keep
// is one record.
class ControlServer::Connection {
public:
        Connection(ControlServer& server, OwnedFd fd, uid_t uid)
                : server_(server), uid_(uid), last_turn_(++server.turns_), fd_(std::move(fd)) {}

        ~Connection() {
                io_.reset();  // what watches ends before what is watched
                if (answer_.undelivered && !last_sent_) {
                        (void)guarded([&] { answer_.undelivered(); });
                }
                server_.closer_.close_connection(std::move(fd_));
        }
        Connection(const Connection&) = delete;
        Connection& operator=(const Connection&) = delete;

        [[nodiscard]] uid_t uid() const { return uid_; }
        [[nodiscard]] std::uint64_t last_turn() const { return last_turn_; }

        [[nodiscard]] bool watch() {
                sd_event_source* source = nullptr;
                const int r = sd_event_add_io(
                        server_.event_, &source, fd_.get(), EPOLLIN,
                        [](sd_event_source*, int, std::uint32_t, void* self) {
                                return guarded([&] { static_cast<Connection*>(self)->ready(); });
                        },
                        this);
                io_.reset(source);
                return r >= 0;
        }

private:
        // Deletes this connection where it ends: nothing may be touched afterwards.
        void ready() {
                const int level = server_.shares_.level(uid_, steady_usec());
                if (level != level_) {
                        const bool later = level > level_;
                        level_ = level;
                        if (sd_event_source_set_priority(io_.get(), kAhead + level) >= 0 && later) {
                                return;  // still ready, but others come first
                        }
                }
                last_turn_ = ++server_.turns_;
                const auto used_before = own_usec();
                bool goes_on = false;
                try {
                        // While the answer is being made only a hang-up is heard.
                        goes_on = !waiting_ && (answering_ || read_request()) && (!answering_ || write_answer());
                } catch (const std::exception&) {
                        // No exception may cross the C callback: rows that cannot be made cost this peer its
                        // connection.
                        goes_on = false;
                }
                (void)guarded([&] { server_.shares_.used(uid_, own_usec() - used_before, steady_usec()); });
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
                waiting_ = reading_ = true;
                server_.broker_.handle(Channel::kControl, to_be_closed(std::move(*message), server_.closer_),
                                       [self = std::weak_ptr(self_)](Answer answer) {
                                               if (const auto connection = self.lock()) {
                                                       (*connection)->arrived(std::move(answer));
                                               } else if (answer.undelivered) {  // the peer has left
                                                       answer.undelivered();
                                               }
                                       });
                reading_ = false;
                return !waiting_ || sd_event_source_set_io_events(io_.get(), 0) >= 0;
        }

        void arrived(Answer answer) {
                if (!waiting_) {  // a second one, of what failed for want of memory after it had replied
                        return;
                }
                answer_ = std::move(answer);
                waiting_ = false;
                answering_ = true;
                if (!reading_) {
                        (void)sd_event_source_set_io_events(io_.get(), EPOLLOUT);  // then ready() writes it
                }
        }

        [[nodiscard]] bool write_answer() {
                for (std::size_t sent_now = 0; !last_sent_; sent_now++) {
                        if (sent_now == kRecordsPerTurn) {
                                return wait_for_reader();
                        }
                        if (record_.empty()) {
                                next_record();
                        }
                        std::vector<int> fds;
                        for (std::size_t i = 0; is_last_ && i < answer_.fds.size(); i++) {
                                fds.push_back(answer_.fds[i].get());
                        }
                        if (const auto sent = send_record(fd_.get(), record_, fds); !sent) {
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
                while (more_lines()) {
                        const auto rest = std::string_view(lines_).substr(taken_);
                        const std::size_t room = kMaxRecordBytes - record_.size();
                        const std::size_t end = rest.size() <= room ? rest.size()
                                                : room == 0         ? 0
                                                                    : rest.rfind('\n', room - 1) + 1;
                        if (end == 0) {  // npos + 1, too: none of them fits
                                if (record_.empty()) {
                                        throw std::length_error("a line that no record can hold");
                                }
                                return;
                        }
                        record_ += rest.substr(0, end);
                        taken_ += end;
                        if (taken_ < lines_.size()) {
                                return;
                        }
                }
                if (record_.empty()) {
                        record_ = format_result(answer_.code, answer_.message, answer_.warnings);
                        is_last_ = true;
                }
        }

        // Whether lines_ holds some that are in no record yet.
        [[nodiscard]] bool more_lines() {
                while (taken_ == lines_.size() && answer_.rows) {
                        taken_ = 0;
                        auto lines = answer_.rows();
                        if (!lines) {
                                answer_.code = lines.error().code;
                                answer_.message = lines.error().message;
                        }
                        if (lines && *lines) {
                                lines_ = std::move(**lines);
                        } else {
                                lines_ = {};
                                answer_.rows = nullptr;
                        }
                }
                return taken_ < lines_.size();
        }

        [[nodiscard]] bool wait_for_reader() {
                deadline_.reset();
                sd_event_source* source = nullptr;
                const int r = sd_event_add_time_relative(
                        server_.event_, &source, CLOCK_MONOTONIC, kIdleReaderUsec, 0,
                        [](sd_event_source*, std::uint64_t, void* self) {
                                return guarded([&] {
                                        auto* connection = static_cast<Connection*>(self);
                                        connection->server_.drop(connection);
                                });
                        },
                        this);
                deadline_.reset(source);
                return r >= 0 && sd_event_source_set_io_events(io_.get(), EPOLLOUT) >= 0;
        }

        ControlServer& server_;
        int level_ = 0;  // of its user among all, when it was last looked at
        const uid_t uid_;
        std::uint64_t last_turn_;
        OwnedFd fd_;
        Answer answer_;
        std::string record_;
        std::string lines_;      // came at once, and did not all fit into a record
        std::size_t taken_ = 0;  // how much of them is in one
        bool waiting_ = false;   // for an answer that comes later
        bool reading_ = false;   // the request is in hand
        bool answering_ = false;
        std::shared_ptr<Connection*> self_ = std::make_shared<Connection*>(this);
        bool is_last_ = false;
        bool last_sent_ = false;
        OwnedSource deadline_;
        OwnedSource io_;
};

ControlServer::ControlServer(sd_event* event, OwnedFd fd, Broker& broker, Closer& closer,
                             std::function<void()> on_unloaded)
        : event_(event),
          broker_(broker),
          closer_(closer),
          on_unloaded_(std::move(on_unloaded)),
          fd_(std::move(fd)),
          reserve_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {}

ControlServer::~ControlServer() = default;

Result<std::unique_ptr<ControlServer>> ControlServer::listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                             Closer& closer, std::function<void()> on_unloaded) {
        std::unique_ptr<ControlServer> server(
                new ControlServer(event, std::move(fd), broker, closer, std::move(on_unloaded)));
        // One that was passed may block, although those of systemd do not: then accepting until nobody waits would
        // hang.
        const int flags = fcntl(server->fd_.get(), F_GETFL);
        if (flags < 0 || fcntl(server->fd_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
                return fail_errno("cannot make the control socket non-blocking");
        }
        rlimit descriptors{};
        if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
                server->max_connections_ = std::clamp<std::size_t>(descriptors.rlim_cur / 2, 1, kMaxConnections);
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, server->fd_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        return guarded([&] { static_cast<ControlServer*>(self)->accept_some(); });
                },
                server.get());
        if (r < 0) {
                return fail(r, "cannot watch the control socket");
        }
        server->source_.reset(source);
        return server;
}

// Several a turn: with many busy connections the next turn is far away, and who wants in has waited already.
void ControlServer::accept_some() {
        for (std::size_t i = 0; i < kAcceptsPerTurn; i++) {
                OwnedFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
                if (fd) {
                        admit(std::move(fd));
                } else if (errno == EMFILE || errno == ENFILE) {
                        // Turn the peer away; a connection that stays in the queue would wake the loop for ever.
                        reserve_.reset();
                        fd.reset(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
                        if (fd) {
                                closer_.close_connection(std::move(fd));
                        }
                        reserve_.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
                } else {
                        return;
                }
        }
}

void ControlServer::admit(OwnedFd fd) {
        // For counting only, never for judging: who connected is not who writes.
        ucred connected{};
        socklen_t size = sizeof connected;
        if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &connected, &size) != 0 ||
            !prepare_receiver(fd.get()).has_value()) {
                closer_.close_connection(std::move(fd));
                return;
        }
        const auto counted = per_uid_.find(connected.uid);
        if (connected.uid != 0 && counted != per_uid_.end() && counted->second >= kMaxConnectionsPerUid) {
                // Whether it arrives does not matter, the connection ends here.
                static_cast<void>(send_record(
                        fd.get(),
                        format_result(ResultCode::kRateLimited,
                                      fmt::format("too many connections, a user may have {}", kMaxConnectionsPerUid))));
                closer_.close_connection(std::move(fd));
                return;
        }
        if (connections_.size() >= max_connections_) {
                drop(most_dispensable());
        }
        auto connection = std::make_unique<Connection>(*this, std::move(fd), connected.uid);
        if (!connection->watch()) {
                return;
        }
        std::size_t& of_uid = per_uid_[connected.uid];
        auto* key = connection.get();
        connections_.emplace(key, std::move(connection));
        of_uid++;
}

// One user may have many uids (subuid(5)), so the limit of each cannot keep places free for others. Whoever has most of
// them gives up the one that was silent for longest.
ControlServer::Connection* ControlServer::most_dispensable() const {
        const auto rank = [this](const Connection& connection) {
                return std::pair(per_uid_.at(connection.uid()), ~connection.last_turn());
        };
        return std::ranges::max_element(connections_, {}, [&](const auto& entry) { return rank(*entry.first); })->first;
}

void ControlServer::drop(Connection* connection) {
        const auto counted = per_uid_.find(connection->uid());
        if (counted != per_uid_.end() && --counted->second == 0) {
                per_uid_.erase(counted);
        }
        connections_.erase(connection);
}

}  // namespace sockbroker
