// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/holds.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <exception>

#include <fmt/format.h>

namespace sockbroker {

namespace {

constexpr std::string_view kStoredPrefix = "held-";

bool has_ended(int pidfd) {
        pollfd entry{.fd = pidfd, .events = POLLIN, .revents = 0};
        return pidfd < 0 || poll(&entry, 1, 0) > 0;
}

}  // namespace

std::string stored_name(std::uint64_t cookie, const std::string& service) {
        return fmt::format("{}{:016x}-{}", kStoredPrefix, cookie, service);
}

std::string service_of_stored(const std::string& name) {
        constexpr std::size_t kBefore = kStoredPrefix.size() + 16 + 1;
        return name.starts_with(kStoredPrefix) && name.size() > kBefore ? name.substr(kBefore) : std::string();
}

std::int64_t monotonic_now_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

Holds::Holds(sd_event* event, Closer& closer, Hooks hooks)
        : event_(event),
          closer_(closer),
          hooks_(std::move(hooks)),
          units_(event, {.changed =
                                 [this](const std::string& unit) {
                                         look_at_each([&](const Held& held) { return held.unit == unit; });
                                 },
                         .settled =
                                 [this] {
                                         look_at_each([](const Held&) { return true; });
                                         for (const auto& [cookie, then] : std::exchange(waiting_, {})) {
                                                 look_at(cookie, then);
                                         }
                                 }}) {}

Holds::~Holds() = default;

void Holds::keep(Held held, OwnedFd socket, OwnedFd process, bool stored) {
        const auto cookie = held.cookie;
        if (!stored) {
                (void)store_.add(stored_name(cookie, held.service), socket.get());
        }
        Kept& kept = kept_[cookie];
        kept.process_watch.reset();
        kept = {.held = std::move(held),
                .socket = std::move(socket),
                .process = std::move(process),
                .process_watch = {}};
        watch_process(kept);
        if (!kept.held.unit.empty()) {
                units_.want();
        }
        set_timer();
        look_at(cookie);
}

void Holds::pass_on(std::uint64_t cookie, std::string unit, std::int64_t registered_usec, OwnedFd process) {
        const auto found = kept_.find(cookie);
        if (found == kept_.end()) {
                return;
        }
        Kept& kept = found->second;
        kept.process_watch.reset();
        kept.process = std::move(process);
        kept.held.unit = std::move(unit);
        kept.held.registered_usec = registered_usec;
        kept.held.gone_usec = 0;
        watch_process(kept);
        set_timer();
        look_at(cookie);
}

void Holds::take_back(std::uint64_t cookie) {
        if (const auto found = kept_.find(cookie); found != kept_.end() && found->second.held.gone_usec == 0) {
                set_gone(found->second, monotonic_now_usec());
        }
}

void Holds::set_span(std::uint64_t cookie, std::int64_t hold_usec) {
        if (const auto found = kept_.find(cookie); found != kept_.end()) {
                found->second.held.hold_usec = hold_usec;
                set_timer();
        }
}

void Holds::release(std::uint64_t cookie) {
        const auto found = kept_.find(cookie);
        if (found == kept_.end()) {
                return;
        }
        store_.remove(stored_name(cookie, found->second.held.service));
        std::vector<OwnedFd> socket;
        socket.push_back(std::move(found->second.socket));
        kept_.erase(found);
        closer_.close(std::move(socket));
        set_timer();
}

const Held* Holds::find(std::uint64_t cookie) const {
        const auto found = kept_.find(cookie);
        return found == kept_.end() ? nullptr : &found->second.held;
}

std::vector<std::uint64_t> Holds::cookies_of(const std::string& service) const {
        std::vector<std::uint64_t> result;
        for (const auto& [cookie, kept] : kept_) {
                if (kept.held.service == service) {
                        result.push_back(cookie);
                }
        }
        return result;
}

OwnedFd Holds::duplicate(std::uint64_t cookie) const {
        const auto found = kept_.find(cookie);
        return found == kept_.end() ? OwnedFd() : OwnedFd(fcntl(found->second.socket.get(), F_DUPFD_CLOEXEC, 3));
}

void Holds::settle(const std::string& service, std::function<void()> then) {
        // Called when the last of those that hold it has let go of it.
        const std::shared_ptr<void> settled(nullptr, [then = std::move(then)](void*) { then(); });
        for (const auto cookie : cookies_of(service)) {
                look_at(cookie, [settled] {});
        }
}

// `then` ends with the answer.
void Holds::look_at(std::uint64_t cookie, const std::function<void()>& then) {
        const auto found = kept_.find(cookie);
        if (found == kept_.end()) {
                return;
        }
        const Held& held = found->second.held;
        if (!held.unit.empty() && units_.pending()) {
                if (then) {
                        waiting_.emplace_back(cookie, then);
                }
                return;  // as soon as the bus answers, or does not
        }
        if (held.unit.empty() || !units_.connected()) {
                return judge(cookie, nullptr);
        }
        units_.ask(held.unit, [this, cookie, registered = held.registered_usec, then](const UnitState* state) {
                const Held* now = find(cookie);
                if (now != nullptr && now->registered_usec == registered) {  // else of another registrant since
                        judge(cookie, state);
                }
        });
}

void Holds::judge(std::uint64_t cookie, const UnitState* state) {
        Kept& kept = kept_.at(cookie);
        if (state == nullptr) {  // what is known is the process
                if (kept.held.gone_usec == 0 && has_ended(kept.process.get())) {
                        set_gone(kept, monotonic_now_usec());
                }
                return;
        }
        if (!state->triggered_by.empty()) {
                return end(cookie, HoldEnd::kActivated);
        }
        switch (presence_of(*state, kept.held.registered_usec)) {
        case Presence::kThere:
                return;
        case Presence::kStopped:
                return end(cookie, HoldEnd::kStopped);
        case Presence::kGone:
                if (kept.held.gone_usec == 0) {
                        const auto ended = state->ended_usec;
                        set_gone(kept, ended > kept.held.registered_usec ? ended : monotonic_now_usec());
                }
        }
}

void Holds::set_gone(Kept& kept, std::int64_t gone_usec) {
        kept.held.gone_usec = gone_usec;
        set_timer();
        const Held copy = kept.held;  // it may be released by what follows
        hooks_.gone(copy);
}

void Holds::end(std::uint64_t cookie, HoldEnd why) {
        const Held held = kept_.at(cookie).held;
        release(cookie);
        hooks_.ended(held, why);
}

void Holds::watch_process(Kept& kept) {
        if (!kept.process) {
                return;  // look_at() follows
        }
        struct Context {
                Holds* holds;
                std::uint64_t cookie;
        };
        sd_event_source* source = nullptr;
        auto context = std::make_unique<Context>(Context{this, kept.held.cookie});
        const int r = sd_event_add_io(
                event_, &source, kept.process.get(), EPOLLIN,
                [](sd_event_source* ended, int, std::uint32_t, void* userdata) {
                        sd_event_source_set_enabled(ended, SD_EVENT_OFF);
                        const auto [holds, cookie] = *static_cast<Context*>(userdata);
                        try {
                                holds->look_at(cookie);
                        } catch (const std::exception&) {
                                // For want of memory; settle() looks again.
                        }
                        return 0;
                },
                context.get());
        if (r < 0) {
                return;
        }
        sd_event_source_set_destroy_callback(source, [](void* userdata) { delete static_cast<Context*>(userdata); });
        (void)context.release();
        kept.process_watch.reset(source);
}

void Holds::look_at_each(const std::function<bool(const Held&)>& concerned) {
        std::vector<std::uint64_t> cookies;  // what is looked at may be released
        for (const auto& [cookie, kept] : kept_) {
                if (concerned(kept.held)) {
                        cookies.push_back(cookie);
                }
        }
        for (const auto cookie : cookies) {
                look_at(cookie);
        }
}

void Holds::set_timer() {
        std::int64_t next = 0;
        for (const auto& [cookie, kept] : kept_) {
                if (kept.held.gone_usec != 0) {
                        const auto end = kept.held.gone_usec + kept.held.hold_usec;
                        next = next == 0 ? end : std::min(next, end);
                }
        }
        timer_.reset();
        if (next == 0) {
                return;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time(
                event_, &source, CLOCK_MONOTONIC, static_cast<std::uint64_t>(next), 1,
                [](sd_event_source*, std::uint64_t, void* self) {
                        try {
                                static_cast<Holds*>(self)->expire();
                        } catch (const std::exception&) {
                                // For want of memory; the next change sets the timer again.
                        }
                        return 0;
                },
                this);
        timer_.reset(r < 0 ? nullptr : source);
}

void Holds::expire() {
        const auto now = monotonic_now_usec();
        std::vector<std::uint64_t> over;
        for (const auto& [cookie, kept] : kept_) {
                if (kept.held.gone_usec != 0 && kept.held.gone_usec + kept.held.hold_usec <= now) {
                        over.push_back(cookie);
                }
        }
        for (const auto cookie : over) {
                end(cookie, HoldEnd::kExpired);
        }
        set_timer();
}

}  // namespace sockbroker
