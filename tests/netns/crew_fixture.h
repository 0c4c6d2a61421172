// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A core as small as can be around a real crew: it peeks, has messages with descriptors taken, answers "done", "late"
// and so on, and never touches a descriptor of its peers. Peers are in crew_peers.h.
#pragma once

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/base/event.h"
#include "broker/hands/crew.h"
#include "broker/protocol/message.h"
#include "broker/protocol/peek.h"
#include "broker/socket/facts.h"
#include "tests/netns/crew_peers.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::hands {

extern std::string bpffs;

constexpr uid_t kHonest = 61001;

inline std::uint64_t cookie_of(int fd) {
        std::uint64_t cookie = 0;
        socklen_t size = sizeof cookie;
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
        return cookie;
}

inline std::string name_of(Outcome outcome) {
        switch (outcome) {
        case Outcome::kDone:
                return "done";
        case Outcome::kLate:
                return "late";
        case Outcome::kLost:
                return "lost";
        case Outcome::kBarred:
                return "barred";
        case Outcome::kBusy:
                break;
        }
        return "busy";
}

class MiniCore {
public:
        struct Settings {
                unsigned hands = 2;
                bool with_manager = false;
        };

        MiniCore() : MiniCore(Settings{}) {}
        explicit MiniCore(const Settings& settings) {
                char place[] = "/tmp/sockbroker-hands-XXXXXX";
                directory_ = mkdtemp(place);
                chmod(directory_.c_str(), 0755);
                auto zygote = Zygote::start(*own_netns_cookie());
                if (!zygote) {
                        throw std::runtime_error(zygote.error().text());
                }
                zygote_ = std::move(*zygote);
                sd_event* made = nullptr;
                test::must(sd_event_new(&made), "sd_event_new");
                event_.reset(made);
                control_ = unix_socket(control_path(), SOCK_SEQPACKET, true);
                notify_ = unix_socket(notify_path(), SOCK_DGRAM, true);
                (void)prepare_for_peeking(notify_.get());
                staging_ = test::made(
                        bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "staging", 4, 8, Crew::kStagingSlots, nullptr), "sockmap");
                Crew::Options options{.control = control_.get(),
                                      .notify = notify_.get(),
                                      .staging = staging_.get(),
                                      .hands = settings.hands};
                if (settings.with_manager) {
                        manager_ = unix_socket(directory_ + "/manager", SOCK_DGRAM, true);
                        to_manager_ = unix_socket(directory_ + "/manager", SOCK_DGRAM, false);
                        options.manager = to_manager_.get();
                }
                auto crew =
                        Crew::start(event_.get(), *zygote_, options,
                                    {.connected = [this](Connection one) { connected(std::move(one)); },
                                     .refused = [this](const RefusedReport& one) { turned_away.push_back(one); },
                                     .lost =
                                             [this](const std::string& key, const std::vector<std::uint64_t>& gone) {
                                                     lost[key] = gone;
                                                     if (on_lost) {
                                                             on_lost(key, gone);
                                                     }
                                             },
                                     .forgotten = [this](const std::string& name) { forgotten.push_back(name); },
                                     .died = [this] { zygote_died = true; }});
                if (!crew) {
                        throw std::runtime_error(crew.error().text());
                }
                crew_ = std::move(*crew);
                sd_event_source* source = nullptr;
                test::must(sd_event_add_io(
                                   event_.get(), &source, notify_.get(), EPOLLIN,
                                   [](sd_event_source*, int, std::uint32_t, void* self) {
                                           return guarded([&] { static_cast<MiniCore*>(self)->read_notify(); });
                                   },
                                   this),
                           "watch notify");
                notify_io_.reset(source);
        }
        ~MiniCore() {
                connections_.clear();
                const pid_t zygote = zygote_pid();
                crew_.reset();
                zygote_.reset();
                if (zygote != 0) {
                        waitpid(zygote, nullptr, 0);
                }
                remove_files();
        }
        MiniCore(const MiniCore&) = delete;
        MiniCore& operator=(const MiniCore&) = delete;

        [[nodiscard]] std::string control_path() const { return directory_ + "/control"; }
        [[nodiscard]] std::string notify_path() const { return directory_ + "/notify"; }
        [[nodiscard]] Crew& crew() { return *crew_; }
        [[nodiscard]] int staging() const { return staging_.get(); }
        [[nodiscard]] sd_event* event() const { return event_.get(); }
        [[nodiscard]] std::size_t connections() const { return connections_.size(); }

        // The loop, until this holds. False: not in time.
        bool run_until(const std::function<bool()>& holds, int seconds = 20) {
                const auto end = steady_usec() + seconds * std::int64_t{1'000'000};
                while (!holds()) {
                        if (steady_usec() > end) {
                                return false;
                        }
                        const auto began = steady_usec();
                        sd_event_run(event_.get(), 20'000);
                        most_left_behind = std::max(most_left_behind, crew_->left_behind());
                        slowest_turn = std::max(slowest_turn, steady_usec() - began - 20'000);
                }
                return true;
        }

        // As it could at any moment.
        void end_connections() {
                while (!connections_.empty()) {
                        end(connections_.begin()->first);
                }
        }

        void remove_files() const {
                for (const char* name : {"/control", "/notify", "/manager"}) {
                        unlink((directory_ + name).c_str());
                }
                rmdir(directory_.c_str());
        }

        // Any process of the crew, which is gone when this returns.
        bool kill_one(const std::string& name) {
                const auto victims = name == "sb-zygote" ? std::vector{Process{zygote_pid(), name}} : hands(name);
                if (victims.empty() || victims[0].pid == 0) {
                        return false;
                }
                kill(victims[0].pid, SIGKILL);
                return run_until([&] {
                        return std::ranges::none_of(hands(name),
                                                    [&](const Process& one) { return one.pid == victims[0].pid; });
                });
        }

        // What a holder tells the manager next; nothing: it does not.
        Message next_to_manager() {
                Message next;
                (void)run_until([&] {
                        auto message = receive(manager_.get());
                        if (message) {
                                next = std::move(*message);
                        }
                        return message.has_value();
                });
                return next;
        }

        // Until this child has ended: its exit status.
        int run_while(pid_t child, int seconds = 60) {
                int status = -1;
                const bool ended = run_until([&] { return waitpid(child, &status, WNOHANG) == child; }, seconds);
                return ended && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }

        [[nodiscard]] pid_t zygote_pid() const {
                for (const auto& one : children_of(getpid())) {
                        if (one.name == "sb-zygote" && one.state != 'Z') {
                                return one.pid;
                        }
                }
                return 0;
        }
        [[nodiscard]] std::vector<Process> hands(const std::string& name) const {
                auto all = children_of(zygote_pid());
                std::erase_if(all, [&](const Process& one) { return one.name != name; });
                return all;
        }

        // What a message means is in its first word: "admit" has its sockets offered, "hold NAME" kept too, all else is
        // discarded. "get NAME", without descriptors, is answered with what is kept.
        std::map<std::string, std::vector<std::uint64_t>> lost;
        std::function<void(const std::string&, const std::vector<std::uint64_t>&)> on_lost;
        std::vector<std::string> forgotten;
        std::vector<RefusedReport> turned_away;  // connections, by the door
        bool zygote_died = false;
        std::int64_t slowest_turn = 0;
        std::size_t most_left_behind = 0;
        std::size_t refused = 0;
        std::vector<std::int64_t> sent_usec;  // of each message on a connection
        std::vector<int> sent;                // errno of each "get"
        std::vector<std::string> notified;    // outcome of each message with descriptors
        std::function<void(const Taken&)> on_taken;

private:
        struct Peer {
                MiniCore* core = nullptr;
                Connection connection;
                OwnedSource io;
                bool busy = false;
                Charge charge;
        };

        void connected(Connection one) {
                auto peer = std::make_shared<Peer>();
                peer->core = this;
                peer->charge.uid = one.uid;
                const auto id = one.id;
                peer->connection = std::move(one);
                sd_event_source* source = nullptr;
                test::must(sd_event_add_io(
                                   event_.get(), &source, peer->connection.fd.get(), EPOLLIN,
                                   [](sd_event_source*, int, std::uint32_t, void* self) {
                                           auto* of = static_cast<Peer*>(self);
                                           return guarded([&] { of->core->read(of->connection.id); });
                                   },
                                   peer.get()),
                           "watch");
                peer->io.reset(source);
                connections_.emplace(id, std::move(peer));
        }

        void read(std::uint64_t id) {
                const auto peer = connections_.at(id);
                const int fd = peer->connection.fd.get();
                auto message = peek_sent(fd);
                if (!message) {
                        return;
                }
                if (message->text.empty() && !message->has_fds) {
                        return end(id);
                }
                sent_usec.push_back(message->sent_usec);
                if (message->credentials) {
                        peer->charge.uid = message->credentials->uid;
                }
                if (!message->has_fds) {
                        (void)consume(fd, *message);
                        if (!message->text.starts_with("get ")) {
                                (void)send_record(fd, "done");
                                return;
                        }
                        const auto name = message->text.substr(4);
                        crew_->send(name, crew_->kept(name), fd, id, "done",
                                    [this](int errnum) { sent.push_back(errnum); });
                        return;
                }
                Crew::Take what{.connection = fd, .id = id, .charge = peer->charge};
                what.charge.admitted = what.probe = message->text.starts_with("admit");
                if (message->text.starts_with("hold ")) {
                        what.charge.admitted = what.probe = true;
                        what.holder = message->text.substr(5);
                }
                sd_event_source_set_io_events(peer->io.get(), 0);
                const bool accepted = crew_->take(what, [this, weak = std::weak_ptr(peer)](const Taken& taken) {
                        if (on_taken) {
                                on_taken(taken);
                        }
                        const auto waiting = weak.lock();
                        if (!waiting) {
                                return;
                        }
                        (void)send_record(waiting->connection.fd.get(), name_of(taken.outcome));
                        if (taken.outcome == Outcome::kDone) {
                                sd_event_source_set_io_events(waiting->io.get(), EPOLLIN);
                        } else {
                                end(waiting->connection.id);
                        }
                });
                if (!accepted) {
                        refused++;
                        (void)send_record(fd, "barred");
                        end(id);
                }
        }

        void end(std::uint64_t id) {
                const auto peer = std::move(connections_.extract(id).mapped());
                peer->io.reset();
                crew_->close(id, std::move(peer->connection.fd), peer->charge);
        }

        void read_notify() {
                auto message = peek(notify_.get());
                if (!message) {
                        return;
                }
                if (!message->has_fds) {
                        (void)consume(notify_.get(), *message);
                        return;
                }
                Crew::Take what{.charge = {.uid = message->credentials ? message->credentials->uid : 0}};
                what.charge.admitted = what.probe = message->text.starts_with("admit");
                sd_event_source_set_enabled(notify_io_.get(), SD_EVENT_OFF);
                const bool accepted = crew_->take(
                        what,
                        // The next one may wait for its hand already: only `taken` says that the head is gone.
                        [this](const Taken& taken) { notified.push_back(name_of(taken.outcome)); },
                        [this] { sd_event_source_set_enabled(notify_io_.get(), SD_EVENT_ON); });
                if (!accepted) {
                        refused++;
                }
        }

        std::string directory_;
        std::unique_ptr<Zygote> zygote_;
        OwnedEvent event_;
        OwnedFd control_;
        OwnedFd notify_;
        OwnedFd staging_;
        OwnedFd manager_;
        OwnedFd to_manager_;
        std::unique_ptr<Crew> crew_;
        OwnedSource notify_io_;
        std::map<std::uint64_t, std::shared_ptr<Peer>> connections_;
};

}  // namespace sockbroker::hands
