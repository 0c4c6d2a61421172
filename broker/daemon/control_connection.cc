// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/control_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <ctime>
#include <exception>
#include <utility>
#include <vector>

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

void read_label(Incoming& message) {
        auto request = request_of_label(message.text, message.has_fds);
        message.text = request ? std::move(*request) : "";
        if (!request) {
                message.malformed = std::move(request.error());
        }
}

}  // namespace

ControlServer::Connection::Connection(ControlServer& server, const hands::Connection& accepted)
        : server_(server),
          id_(accepted.id),
          uid_(accepted.uid),
          labels_(accepted.labels),
          last_active_(++server.activity_),
          charge_{.uid = accepted.uid},
          records_(labels_) {}

ControlServer::Connection::~Connection() {
        io_.reset();  // what watches ends before what is watched
        if (!records_.all_sent()) {
                server_.not_delivered(records_.answer());
        }
        if (fd_) {
                server_.crew_.close(id_, std::move(fd_), std::move(charge_));
        }
}

bool ControlServer::Connection::watch(int fd) {
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
void ControlServer::Connection::end_feed() {
        const Answer& answer = records_.answer();
        if (answer.feed == nullptr || fd_.get() < 0) {
                return;
        }
        for (; !records_.current().empty(); records_.sent()) {
                if (!send_record(fd_.get(), records_.current(), {})) {
                        return;
                }
        }
        (void)send_record(fd_.get(), format_result(answer.code, answer.message), {});
}

void ControlServer::Connection::ready(std::uint32_t events) {
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
                const bool left = records_.answer().feed != nullptr && (events & (EPOLLHUP | EPOLLERR)) != 0;
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

bool ControlServer::Connection::read_request() {
        auto peeked = peek_sent(fd_.get());
        if (!peeked) {
                return peeked.error().errnum == EAGAIN;
        }
        if (peeked->text.empty() && !peeked->has_fds && !peeked->truncated) {
                return false;  // end of file
        }
        const auto message = incoming(std::move(*peeked));
        message->connected_by = uid_;
        if (labels_) {
                read_label(*message);
        }
        waiting_ = reading_ = true;
        if (message->has_fds) {
                pin_sender(fd_.get(), *message);
                server_.broker_.plan(
                        Channel::kControl, message, [self = std::weak_ptr(self_), message](const Intake& intake) {
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

// What comes later than ready(): where memory does not suffice for it the peer loses its connection.
template <class Act>
void ControlServer::Connection::or_end(const Act& act) {
        if (reading_) {
                return act();  // ready() sees to it
        }
        if (!succeeds(act)) {
                server_.drop(this);
        }
}

// Until a hand has it nothing may be received from this connection.
void ControlServer::Connection::take(const IncomingPtr& message, const Intake& intake) {
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

// An answer that is there at once is written at once: to wait until there is room for it takes two system calls.
void ControlServer::Connection::handle_taken(const IncomingPtr& message) {
        const auto used_before = own_usec();
        const bool alone = !std::exchange(reading_, true);
        handle(message);
        if (!message->settled) {
                server_.broker_.park(*message);
        }
        bool goes_on = true;
        if (alone) {
                reading_ = false;
                goes_on = !answering_ || write_answer();
        }
        server_.scheduler_.used(uid_, own_usec() - used_before, steady_usec());
        if (!goes_on) {
                server_.drop(this);
        }
}

void ControlServer::Connection::handle(const IncomingPtr& message) {
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

void ControlServer::Connection::arrived(Answer answer) {
        if (!waiting_) {  // a second one, of what failed for want of memory after it had replied
                return;
        }
        records_.begin(std::move(answer));
        waiting_ = false;
        answering_ = true;
        if (!reading_) {
                (void)sd_event_source_set_io_events(io_.get(), EPOLLOUT);  // then ready() writes it
        }
}

bool ControlServer::Connection::write_answer() {
        const Answer& answer = records_.answer();
        std::size_t sent_now = 0;
        while (!records_.all_sent()) {
                if (sent_now >= kBytesPerTurn) {
                        return wait_for_reader();
                }
                const std::string& record = records_.current();
                if (record.empty()) {
                        return wait_for_feed();
                }
                if (records_.is_last() && !answer.held.cookies.empty()) {
                        return send_held();
                }
                std::vector<int> fds;
                for (std::size_t i = 0; records_.is_last() && i < answer.fds.size(); i++) {
                        fds.push_back(answer.fds[i].get());
                }
                if (const auto sent = send_record(fd_.get(), record, fds); !sent) {
                        return sent.error().errnum == EAGAIN && wait_for_reader();
                }
                sent_now += record.size();
                records_.sent();
        }
        return finish_answer();
}

// The holder sends the record, with the sockets that it keeps. Until it has said so not even a hang-up is
// heard: who has them may leave at once.
bool ControlServer::Connection::send_held() {
        const auto& held = records_.answer().held;
        server_.crew_.send(held.service, held.cookies, fd_.get(), id_, records_.current(),
                           [self = std::weak_ptr(self_)](int errnum) {
                                   if (const auto connection = self.lock()) {
                                           (*connection)->held_sent(errnum);
                                   }
                           });
        return sd_event_source_set_enabled(io_.get(), SD_EVENT_OFF) >= 0;
}

void ControlServer::Connection::held_sent(int errnum) {
        if (errnum == 0) {
                records_.sent();
        }
        bool goes_on = sd_event_source_set_enabled(io_.get(), SD_EVENT_ON) >= 0;
        const bool told = succeeds([&] {
                if (errnum == 0) {
                        goes_on = goes_on && finish_answer();
                } else if (errnum == EAGAIN) {
                        goes_on = goes_on && wait_for_reader();
                } else if (errnum == EBUSY || errnum == ENOENT) {
                        std::exchange(records_.answer().undelivered, nullptr)();
                        records_.begin({.code = ResultCode::kBusy,
                                        .message = "the process that keeps the sockets is busy or has ended, ask "
                                                   "again"});
                        goes_on = goes_on && sd_event_source_set_io_events(io_.get(), EPOLLOUT) >= 0;
                } else {
                        goes_on = false;
                }
        });
        if (!told || !goes_on) {
                server_.drop(this);
        }
}

bool ControlServer::Connection::finish_answer() {
        if (records_.answer().unloaded) {
                server_.on_unloaded_();
        }
        records_.begin({});
        answering_ = false;
        deadline_.reset();
        return sd_event_source_set_io_events(io_.get(), ends_ ? 0U : std::uint32_t{EPOLLIN}) >= 0;
}

bool ControlServer::Connection::wait_for_feed() {
        records_.answer().feed->on_more([self = std::weak_ptr(self_)] {
                if (const auto connection = self.lock()) {
                        (void)sd_event_source_set_io_events((*connection)->io_.get(), EPOLLOUT);
                }
        });
        return sd_event_source_set_io_events(io_.get(), 0) >= 0;
}

bool ControlServer::Connection::wait_for_reader() {
        deadline_.reset();
        if (records_.answer().feed != nullptr) {  // whoever looks away misses lines, and is told so
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

}  // namespace sockbroker
