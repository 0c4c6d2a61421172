// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/control_server.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "broker/protocol/label.h"
#include "broker/protocol/peek.h"

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
        Connection(ControlServer& server, const hands::Connection& accepted)
                : server_(server),
                  id_(accepted.id),
                  uid_(accepted.uid),
                  labels_(accepted.labels),
                  last_active_(++server.activity_),
                  charge_{.uid = accepted.uid} {}

        ~Connection() {
                io_.reset();  // what watches ends before what is watched
                if (!last_sent_) {
                        server_.not_delivered(answer_);
                }
                if (fd_) {
                        server_.crew_.close(id_, std::move(fd_), std::move(charge_));
                }
        }
        Connection(const Connection&) = delete;
        Connection& operator=(const Connection&) = delete;

        [[nodiscard]] uid_t uid() const { return uid_; }
        [[nodiscard]] std::uint64_t last_active() const { return last_active_; }

        [[nodiscard]] bool watch(int fd) {
                sd_event_source* source = nullptr;
                const int r = sd_event_add_io(
                        server_.event_, &source, fd, EPOLLIN,
                        [](sd_event_source*, int, std::uint32_t events, void* self) {
                                return guarded([&] { static_cast<Connection*>(self)->ready(events); });
                        },
                        this);
                io_.reset(source);
                return r >= 0;
        }
        void end_feed() {
                if (answer_.feed == nullptr || fd_.get() < 0) {
                        return;
                }
                if (record_.empty()) {
                        next_record();
                }
                for (; !record_.empty(); next_record()) {
                        if (!send_record(fd_.get(), record_, {})) {
                                return;
                        }
                }
                (void)send_record(fd_.get(), format_result(answer_.code, answer_.message), {});
        }
        // From now on it is closed as what comes from strangers is.
        void own(OwnedFd fd) { fd_ = std::move(fd); }

private:
        // Deletes this connection where it ends: nothing may be touched afterwards.
        void ready(std::uint32_t events) {
                const int level = server_.scheduler_.level(uid_, steady_usec());
                if (level != level_) {
                        const bool later = level > level_;
                        level_ = level;
                        if (sd_event_source_set_priority(io_.get(), kAhead + level) >= 0 && later) {
                                return;  // still ready, but others come first
                        }
                }
                last_active_ = ++server_.activity_;
                const auto used_before = own_usec();
                bool goes_on = false;
                try {
                        // Nobody reads a feed any more, which may have nothing to send for long.
                        const bool left = answer_.feed != nullptr && (events & (EPOLLHUP | EPOLLERR)) != 0;
                        // While the answer is being made only a hang-up is heard.
                        goes_on = !left && !waiting_ && (answering_ || (!ends_ && read_request())) &&
                                  (!answering_ || write_answer());
                } catch (const std::exception&) {
                        // No exception may cross the C callback: rows that cannot be made cost this peer its
                        // connection.
                        goes_on = false;
                }
                (void)guarded([&] { server_.scheduler_.used(uid_, own_usec() - used_before, steady_usec()); });
                if (!goes_on) {
                        server_.drop(this);
                }
        }

        [[nodiscard]] bool read_request() {
                auto peeked = peek_sent(fd_.get());
                if (!peeked) {
                        return peeked.error().errnum == EAGAIN;
                }
                if (peeked->text.empty() && !peeked->has_fds && !peeked->truncated) {
                        return false;  // end of file
                }
                const auto message = incoming(std::move(*peeked));
                if (labels_) {
                        read_label(*message);
                }
                waiting_ = reading_ = true;
                if (message->has_fds) {
                        pin_sender(fd_.get(), *message);
                        server_.broker_.plan(
                                Channel::kControl, message,
                                [self = std::weak_ptr(self_), message](const Intake& intake) {
                                        if (const auto connection = self.lock()) {
                                                (*connection)->or_end([&] { (*connection)->take(message, intake); });
                                        }
                                });
                } else if (consume(fd_.get(), *message)) {
                        handle(message);
                } else {
                        return false;
                }
                reading_ = false;
                return !waiting_ || sd_event_source_set_io_events(io_.get(), 0) >= 0;
        }

        static void read_label(Incoming& message) {
                auto request = request_of_label(message.text);
                message.text = request ? std::move(*request) : "";
                if (!request) {
                        message.malformed = std::move(request.error());
                }
        }

        // What comes later than ready(): where memory does not suffice for it the peer loses its connection.
        template <class Act>
        void or_end(const Act& act) {
                if (reading_) {
                        return act();  // ready() sees to it
                }
                if (!succeeds(act)) {
                        server_.drop(this);
                }
        }

        // Until a hand has it nothing may be received from this connection.
        void take(const IncomingPtr& message, const Intake& intake) {
                charge_ = intake.charge;
                const auto done = [self = std::weak_ptr(self_), message](const hands::Taken& taken) {
                        message->note(taken);
                        if (const auto connection = self.lock()) {
                                (*connection)->or_end([&] { (*connection)->handle_taken(message); });
                        }
                };
                if (!server_.crew_.take({.connection = fd_.get(),
                                         .id = id_,
                                         .charge = charge_,
                                         .probe = intake.probe,
                                         .holder = intake.holder},
                                        done)) {
                        message->note({.outcome = hands::Outcome::kBarred});
                        handle(message);
                }
        }

        void handle_taken(const IncomingPtr& message) {
                const auto used_before = own_usec();
                handle(message);
                if (!message->settled) {
                        server_.broker_.park(*message);
                }
                server_.scheduler_.used(uid_, own_usec() - used_before, steady_usec());
        }

        void handle(const IncomingPtr& message) {
                // What is first in its queue then, and whether a hand is still about to take it, nobody knows.
                ends_ = message->not_taken.has_value();
                server_.broker_.handle(
                        Channel::kControl, message,
                        [self = std::weak_ptr(self_), server = std::weak_ptr(server_.self_), message](Answer answer) {
                                message->settled = true;
                                if (const auto connection = self.lock()) {
                                        (*connection)->arrived(std::move(answer));
                                } else if (const auto there = server.lock()) {
                                        (*there)->not_delivered(answer);
                                }
                        });
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
                        if (record_.empty()) {
                                return wait_for_feed();
                        }
                        if (is_last_ && !answer_.held.cookies.empty()) {
                                return send_held();
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
                return finish_answer();
        }

        // The holder sends the record, with the sockets that it keeps. Until it has said so not even a hang-up is
        // heard: who has them may leave at once.
        [[nodiscard]] bool send_held() {
                server_.crew_.send(answer_.held.service, answer_.held.cookies, fd_.get(), id_, record_,
                                   [self = std::weak_ptr(self_)](int errnum) {
                                           if (const auto connection = self.lock()) {
                                                   (*connection)->held_sent(errnum);
                                           }
                                   });
                return sd_event_source_set_enabled(io_.get(), SD_EVENT_OFF) >= 0;
        }

        void held_sent(int errnum) {
                last_sent_ = errnum == 0;
                bool goes_on = sd_event_source_set_enabled(io_.get(), SD_EVENT_ON) >= 0;
                const bool told = succeeds([&] {
                        if (errnum == 0) {
                                record_.clear();
                                goes_on = goes_on && finish_answer();
                        } else if (errnum == EAGAIN) {
                                goes_on = goes_on && wait_for_reader();
                        } else if (errnum == EBUSY || errnum == ENOENT) {
                                std::exchange(answer_.undelivered, nullptr)();
                                answer_ = {.code = ResultCode::kBusy,
                                           .message =
                                                   "the process that keeps the sockets is busy or has ended, ask "
                                                   "again"};
                                record_.clear();
                                is_last_ = false;
                                goes_on = goes_on && sd_event_source_set_io_events(io_.get(), EPOLLOUT) >= 0;
                        } else {
                                goes_on = false;
                        }
                });
                if (!told || !goes_on) {
                        server_.drop(this);
                }
        }

        [[nodiscard]] bool finish_answer() {
                if (answer_.unloaded) {
                        server_.on_unloaded_();
                }
                answer_ = {};
                answering_ = is_last_ = last_sent_ = false;
                deadline_.reset();
                return sd_event_source_set_io_events(io_.get(), ends_ ? 0U : std::uint32_t{EPOLLIN}) >= 0;
        }

        // Whole lines, as many as fit; then the RESULT= record. Nothing of a feed that has none now.
        void next_record() {
                if (answer_.feed != nullptr) {
                        record_ = answer_.feed->take(kMaxRecordBytes);
                        return;
                }
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
                        record_ = last_record();
                        is_last_ = true;
                }
        }

        [[nodiscard]] std::string last_record() const {
                if (labels_) {
                        return format_label_answer(answer_.code, answer_.message);
                }
                auto record = format_result(answer_.code, answer_.message, answer_.warnings);
                return answer_.cause.empty() ? record : record + fmt::format("CAUSE={}\n", answer_.cause);
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

        [[nodiscard]] bool wait_for_feed() {
                answer_.feed->on_more([self = std::weak_ptr(self_)] {
                        if (const auto connection = self.lock()) {
                                (void)sd_event_source_set_io_events((*connection)->io_.get(), EPOLLOUT);
                        }
                });
                return sd_event_source_set_io_events(io_.get(), 0) >= 0;
        }

        [[nodiscard]] bool wait_for_reader() {
                deadline_.reset();
                if (answer_.feed != nullptr) {  // whoever looks away misses lines, and is told so
                        return sd_event_source_set_io_events(io_.get(), EPOLLOUT) >= 0;
                }
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
        const std::uint64_t id_;
        const uid_t uid_;
        const bool labels_;  // its peer speaks as label.h says
        std::uint64_t last_active_;
        OwnedFd fd_;
        hands::Charge charge_;
        bool ends_ = false;  // nothing is read from it any more, it only waits for its peer to leave
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

ControlServer::ControlServer(sd_event* event, Broker& broker, hands::Crew& crew, std::function<void()> on_unloaded)
        : event_(event), broker_(broker), crew_(crew), on_unloaded_(std::move(on_unloaded)) {
        rlimit descriptors{};
        if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
                max_connections_ = std::clamp<std::size_t>(descriptors.rlim_cur / 2, 1, hands::kMaxConnections);
        }
}

ControlServer::~ControlServer() = default;

void ControlServer::admit(hands::Connection accepted) {
        if (connections_.size() >= max_connections_) {
                drop(most_dispensable());
        }
        auto connection = std::make_unique<Connection>(*this, accepted);
        const bool watched = prepare_for_peeking(accepted.fd.get()) && connection->watch(accepted.fd.get());
        Connection* const key = connection.get();
        const auto at = connections_.emplace(key, std::move(connection)).first;
        try {
                per_uid_[accepted.uid]++;
        } catch (...) {
                connections_.erase(at);
                throw;
        }
        key->own(std::move(accepted.fd));  // from here on it sees to its own end
        if (!watched) {
                drop(key);
        }
}

void ControlServer::end_feeds() {
        for (const auto& [key, connection] : connections_) {
                (void)guarded([&] { key->end_feed(); });
        }
}

// One user may have many uids (subuid(5)), so the limit of each cannot keep places free for others. Whoever has most of
// them gives up the one that was silent for longest.
ControlServer::Connection* ControlServer::most_dispensable() const {
        const auto rank = [this](const Connection& connection) {
                return std::pair(per_uid_.at(connection.uid()), ~connection.last_active());
        };
        return std::ranges::max_element(connections_, {}, [&](const auto& entry) { return rank(*entry.first); })->first;
}

// The peer has left: what was done for it is done.
void ControlServer::not_delivered(const Answer& answer) const {
        if (answer.undelivered) {
                (void)guarded([&] { answer.undelivered(); });
        }
        if (answer.unloaded) {
                on_unloaded_();
        }
}

void ControlServer::drop(Connection* connection) {
        const auto counted = per_uid_.find(connection->uid());
        if (counted != per_uid_.end() && --counted->second == 0) {
                per_uid_.erase(counted);
        }
        connections_.erase(connection);
}

}  // namespace sockbroker
