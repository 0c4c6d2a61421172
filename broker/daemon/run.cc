// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/run.h"

#include <systemd/sd-daemon.h>

#include <malloc.h>

#include <csignal>
#include <ctime>
#include <exception>

#include <fmt/format.h>

#include "broker/audit/audit.h"
#include "broker/base/interface_index.h"
#include "broker/base/turns.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/confine.h"
#include "broker/daemon/control_server.h"
#include "broker/daemon/hear.h"
#include "broker/daemon/link_watch.h"
#include "broker/daemon/links.h"
#include "broker/daemon/load.h"
#include "broker/daemon/notifier.h"
#include "broker/daemon/notify_start.h"
#include "broker/daemon/places.h"
#include "broker/daemon/worker.h"
#include "broker/hands/shares.h"
#include "broker/helper/helper.h"
#include "broker/holds/fd_store.h"
#include "broker/names/process.h"
#ifdef SOCKBROKER_TAKEOVER
#include "tests/sandbox/takeover.h"
#endif

namespace sockbroker {

namespace {

constexpr std::uint64_t kLivenessUsec = 1'000'000;  // between two rounds

// What the handlers of the loop share. Members that watch stand after what they watch.
struct Loop {
        OwnedEvent event;
        std::unique_ptr<Notifier> notifier;
        std::optional<NotifyFilter> filter;
        OwnedFd manager;   // PID 1; none: it did not start this process
        OwnedFd listener;  // of the control socket
        OwnedFd labels;    // of the one for tubular's clients, maybe
        std::unique_ptr<hands::Zygote> zygote;
        std::unique_ptr<hands::Crew> crew;
        std::unique_ptr<Broker> broker;
        std::unique_ptr<Names> names;  // it and the workers call the broker
        std::unique_ptr<Worker> worker;
        std::unique_ptr<Worker> disk;
        std::unique_ptr<NotifyStart> notify;
        std::unique_ptr<ControlServer> control;
        OwnedSource ending;
        OwnedSource liveness;
        OwnedSource trial;                 // its end
        std::unique_ptr<LinkWatch> links;  // none: cannot be watched, then asked from time to time
        bool netns_let_go = false;
};

int on_hangup(sd_event_source*, const signalfd_siginfo*, void* userdata) {
        auto* loop = static_cast<Loop*>(userdata);
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        // The journal has what came of it; whoever wants an answer uses sockbrokerctl reload.
        const bool begun = succeeds([&] {
                loop->notifier->say(
                        fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000LL + now.tv_nsec / 1000));
                loop->broker->reloads().reload([loop](const Answer&) { loop->notifier->say("READY=1"); });
        });
        if (!begun) {  // for want of memory: the policy stays as it is
                loop->notifier->say("READY=1");
        }
        return 0;
}

// A network namespace that was removed ends when nobody has a socket of it, and with it its interfaces.
void let_go_of_netns(Loop& loop) {
        loop.links.reset();
        stop_asking_for_interfaces();
        loop.broker->let_go_of_netns();
        loop.netns_let_go = true;  // last: for want of memory it is done again
}

int on_liveness(sd_event_source* source, std::uint64_t, void* userdata) {
        auto* loop = static_cast<Loop*>(userdata);
        std::uint64_t next = kLivenessUsec;
        (void)guarded([&] {
                if (loop->broker->probe_some()) {
                        next = 0;  // in the next turn, after everybody else's
                        return;
                }
                loop->broker->tell_left_out();
                loop->broker->reloads().look_at_clock();
                if (loop->broker->is_netns_removed() && !loop->netns_let_go) {
                        let_go_of_netns(*loop);
                }
                if (loop->links == nullptr && !loop->netns_let_go) {
                        (void)loop->broker->reloads().refresh_interfaces();
                }
        });
        sd_event_source_set_time_relative(source, next);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

// What was registered last is to be with PID 1 before this process ends, and what was taken off `notify` is to be
// decided: for that a second is waited at most, while all else goes on.
bool is_idle(const Loop& loop) {
        return (!loop.crew || loop.crew->holders_idle()) && (!loop.notify || loop.notify->is_idle());
}

int end(sd_event* event, Loop& loop) {
        if (loop.notify) {
                loop.notify->refuse_waiting();
        }
        return sd_event_exit(event, 0);
}

int on_end(sd_event_source* source, const signalfd_siginfo*, void* userdata) {
        auto* loop = static_cast<Loop*>(userdata);
        sd_event* const event = sd_event_source_get_event(source);
        if (loop->notify) {
                loop->notify->stop();
        }
        if (loop->ending || is_idle(*loop)) {
                return end(event, *loop);
        }
        static constexpr std::uint64_t kLookEvery = 10'000;
        static constexpr int kLooks = 100;
        static int looks = 0;
        sd_event_source* timer = nullptr;
        const int r = sd_event_add_time_relative(
                event, &timer, CLOCK_MONOTONIC, kLookEvery, 0,
                [](sd_event_source* again, std::uint64_t, void* data) {
                        auto& ending = *static_cast<Loop*>(data);
                        if (++looks == kLooks || is_idle(ending)) {
                                return end(sd_event_source_get_event(again), ending);
                        }
                        (void)sd_event_source_set_time_relative(again, kLookEvery);
                        return sd_event_source_set_enabled(again, SD_EVENT_ONESHOT);
                },
                loop);
        loop->ending.reset(timer);
        return r < 0 ? end(event, *loop) : 0;
}

int on_trial_end(sd_event_source*, std::uint64_t, void* userdata) {
        auto* loop = static_cast<Loop*>(userdata);
        (void)guarded([&] { loop->broker->reloads().look_at_clock(); });
        return 0;
}

// One that is over already is looked at in the next turn.
void wait_for_trial(const Loop& loop) {
        sd_event_source_set_time(loop.trial.get(), loop.broker->reloads().trial_end());
        sd_event_source_set_enabled(loop.trial.get(), SD_EVENT_ONESHOT);
}

Result<void> fill(Loop& loop, const DaemonOptions& options, IntakeSockets sockets, NetnsSockets netns,
                  OpenedDataplane opened, Audit& audit) {
        sd_event* event = loop.event.get();
        for (const int signal : {SIGTERM, SIGINT}) {
                if (const int r = sd_event_add_signal(event, nullptr, signal, on_end, &loop); r < 0) {
                        return fail(r, "cannot handle the signals that end the daemon");
                }
        }
        if (const int r = sd_event_add_signal(event, nullptr, SIGHUP, on_hangup, &loop); r < 0) {
                return fail(r, "cannot handle SIGHUP");
        }
        sd_event_source* liveness = nullptr;
        if (const int r = sd_event_add_time_relative(event, &liveness, CLOCK_MONOTONIC, kLivenessUsec, 100'000,
                                                     on_liveness, &loop);
            r < 0) {
                return fail(r, "cannot make a timer");
        }
        loop.liveness.reset(liveness);
        sd_event_source* trial = nullptr;
        if (const int r = sd_event_add_time(event, &trial, CLOCK_MONOTONIC, UINT64_MAX, 1'000, on_trial_end, &loop);
            r < 0) {
                return fail(r, "cannot make a timer");
        }
        loop.trial.reset(trial);
        for (auto* const one : {&loop.worker, &loop.disk}) {
                auto worker = Worker::start(event);
                if (!worker) {
                        return std::unexpected(worker.error());
                }
                *one = std::move(*worker);
        }
        loop.filter = std::move(opened.filter);
        loop.listener = std::move(sockets.control);
        loop.labels = std::move(sockets.labels);
        auto crew = hands::Crew::start(
                event, *loop.zygote,
                {.control = loop.listener.get(),
                 .labels = loop.labels.get(),
                 .notify = sockets.notify.get(),
                 .staging = opened.dataplane->staging_fd(),
                 .manager = loop.manager.get()},
                {.connected = [&loop](hands::Connection one) { loop.control->admit(std::move(one)); },
                 .refused =
                         [&loop](const hands::RefusedReport& report) {
                                 loop.broker->refusals().count_connections(report);
                         },
                 .lost =
                         [&loop](const std::string& service, const std::vector<std::uint64_t>& cookies) {
                                 loop.broker->held().on_lost(service, cookies);
                         },
                 .forgotten = [&loop](const std::string& name) { loop.broker->held().on_forgotten(name); },
                 .group_of = [&loop](uid_t uid) { return loop.filter ? loop.filter->group_of(uid) : ""; },
                 .heard =
                         [&loop, &audit](const hands::Party& party, bool heard) {
                                 if (loop.filter) {
                                         hear(*loop.filter, audit, party, heard);
                                 }
                         },
                 .died = [event] { sd_event_exit(event, EXIT_FAILURE); }});
        if (!crew) {
                return std::unexpected(crew.error());
        }
        loop.crew = std::move(*crew);
        loop.broker = std::make_unique<Broker>(options, opened.config, std::move(opened.dataplane),
                                               Broker::Helpers{.event = event,
                                                               .audit = audit,
                                                               .names = *loop.names,
                                                               .worker = *loop.worker,
                                                               .disk = *loop.disk,
                                                               .crew = *loop.crew,
                                                               .has_store = loop.manager.valid(),
                                                               .netns_cookie = netns.cookie,
                                                               .in_netns = !netns.watch,
                                                               .mistakes = std::move(opened.mistakes)});
        loop.broker->start(std::move(sockets.stored), std::move(sockets.strangers));
        auto& reloads = loop.broker->reloads();
        auto links =
                LinkWatch::open(event, std::move(netns.watch), [&reloads] { return reloads.refresh_interfaces(); });
        if (links) {
                loop.links = std::move(*links);
                (void)reloads.refresh_interfaces();  // what changed since the policy was loaded
        } else {
                audit.note(4, links.error().text());
        }
        auto notify = NotifyStart::begin(event, std::move(sockets.notify), *loop.broker, *loop.crew, audit);
        if (!notify) {
                return std::unexpected(notify.error());
        }
        loop.notify = std::move(*notify);
        loop.control =
                std::make_unique<ControlServer>(event, *loop.broker, *loop.crew, [event] { sd_event_exit(event, 0); });
        return {};
}

// A broker that cannot start, and is started again and again, watches no clock: clients of a service that went
// meanwhile would wait for ever. So what PID 1 keeps is given up, unless the broker comes to serve.
struct StoreGuard {
        std::vector<std::string> names;

        StoreGuard() = default;
        StoreGuard(const StoreGuard&) = delete;
        StoreGuard& operator=(const StoreGuard&) = delete;
        ~StoreGuard() {
                for (const auto& name : names) {
                        sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name.c_str());
                }
        }
};

}  // namespace

Result<void> run_daemon(const DaemonOptions& options) {
        auto netns = take_netns_sockets();
        if (!netns) {
                return std::unexpected(netns.error());
        }
        // Before anything else is opened and any signal is set: the hands are to have nothing of the broker's.
        auto zygote = hands::Zygote::start(netns->cookie);
        if (!zygote) {
                return std::unexpected(zygote.error());
        }
        // Before any thread is made: they inherit the mask, and signals are the loop's.
        sigset_t signals;
        sigemptyset(&signals);
        for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
                sigaddset(&signals, signal);
        }
        sigprocmask(SIG_BLOCK, &signals, nullptr);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGCHLD, SIG_IGN);  // a helper that has ended is heard on its socket
        mallopt(M_ARENA_MAX, 1);   // memory that a thread gives back is for all, not kept for that thread
        // What a large policy takes goes back to the system with it. By itself the threshold rises with what was freed,
        // and the heap then grew with each reload.
        mallopt(M_MMAP_THRESHOLD, 1 << 20);

        // Before anything is opened: it is to hold nothing of the broker's.
        auto names_socket = start_helper("names", answer_questions);
        if (!names_socket) {
                return std::unexpected(names_socket.error());
        }
        if (netns->ask) {
                ask_interfaces_by(std::move(netns->ask));  // the process itself is in a namespace of its own
        } else if (auto checked = check_netns(options.netns); !checked) {
                return checked;
        }
        auto pins = open_pin_dir(options);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        auto sockets = open_intake_sockets(options.runtime_dir);
        if (!sockets) {
                return std::unexpected(sockets.error());
        }
        StoreGuard guard;
        for (const auto& one : sockets->stored) {
                guard.names.push_back(one.name);
        }
        auto manager = connect_to_manager();
        auto to_manager = connect_to_manager();  // of its own: holders fill what they share
        if (auto made = make_state_dir(options.state_dir); !made) {
                return made;
        }
        auto opened = open_dataplane(options);
        if (!opened) {
                return std::unexpected(opened.error());
        }
        if (auto& filter = opened->filter) {
                if (auto attached = filter->attach(sockets->notify.get()); !attached) {
                        opened->notes.push_back(attached.error().text());
                        filter.reset();
                }
        }
        const auto missing = confine(options, opened->dataplane->earlier_rules());
        if (!missing) {
                return std::unexpected(missing.error());
        }

        Audit audit;
        if (!missing->empty()) {
                audit.note(4, *missing);
        }
        for (auto& note : opened->notes) {
                audit.note(4, std::move(note));
        }
        Loop loop;
        loop.zygote = std::move(*zygote);
        if (manager) {
                loop.manager = std::move(*manager);
        } else {
                audit.note(4, manager.error().text());
        }
        sd_event* event = nullptr;
        if (const int r = sd_event_new(&event); r < 0) {
                return fail(r, "cannot make an event loop");
        }
        loop.event.reset(event);
        auto notifier = Notifier::start(event, to_manager ? std::move(*to_manager) : OwnedFd());
        if (!notifier) {
                return std::unexpected(notifier.error());
        }
        loop.notifier = std::move(*notifier);
        auto names = Names::start(event, std::move(*names_socket), [&audit](int priority, std::string message) {
                audit.note(priority, std::move(message));
        });
        if (!names) {
                return std::unexpected(names.error());
        }
        loop.names = std::move(*names);
        if (auto filled = fill(loop, options, std::move(*sockets), std::move(*netns), std::move(*opened), audit);
            !filled) {
                return filled;
        }
        guard.names.clear();
        // However a reload was asked for, `systemctl status` says at once what came of it.
        auto& reloads = loop.broker->reloads();
        reloads.on_status([&reloads, &loop] {
                wait_for_trial(loop);
                // Where memory is short the next one tells.
                (void)guarded([&] { loop.notifier->say("STATUS=" + reloads.status_text()); });
        });
        wait_for_trial(loop);
#ifdef SOCKBROKER_TAKEOVER  // another executable, tests/sandbox
        act_as_if_taken_over(options);
#endif
        loop.notifier->say("READY=1\nSTATUS=" + reloads.status_text());
        const int r = sd_event_loop(loop.event.get());
        loop.notifier->say("STOPPING=1");
        audit.write({.action = Action::kStop, .message = "the broker ends"});
        loop.control->end_feeds();
        if (r < 0) {
                return fail(r, "the event loop failed");
        }
        if (r == NotifyStart::kExitCode) {
                return fail("the notify socket cannot be listened to");
        }
        if (r > 0) {
                return fail("the process that makes the others, which take descriptors, has ended");
        }
        return {};
}

}  // namespace sockbroker
