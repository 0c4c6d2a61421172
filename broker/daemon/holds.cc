// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/holds.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>

#include <fmt/format.h>

namespace sockbroker {

namespace {

bool has_ended(int pidfd) {
        pollfd entry{.fd = pidfd, .events = POLLIN, .revents = 0};
        return pidfd < 0 || poll(&entry, 1, 0) > 0;
}

}  // namespace

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
                                         for (const auto& [key, then] : std::exchange(waiting_, {})) {
                                                 look_at(key, then);
                                         }
                                 }}) {}

// What waits for the bus ends with it, and must find nobody to act for.
Holds::~Holds() {
        *open_ = false;
}

void Holds::store(Stored& stored, int fd, const std::string& name) {
        if (!stored.name.empty() || !store_.exists()) {
                return;
        }
        if (!name.empty()) {
                names_.reserve(name);
                stored.name = name;
        } else if (const auto fresh = names_.take()) {
                if (store_.add(*fresh, fd)) {
                        stored.name = *fresh;
                } else {
                        names_.release(*fresh);
                }
        }
}

bool Holds::keep(Held held, OwnedFd socket, OwnedFd process, const std::string& stored_as) {
        const HoldKey key = held.key;
        const auto gone_usec = std::exchange(held.gone_usec, 0);
        const auto hold_usec = held.hold_usec;
        const auto [at, fresh] = kept_.try_emplace(key);
        Stored& stored = stored_[key.cookie];
        stored.services += fresh ? 1 : 0;
        store(stored, socket.get(), stored_as);
        const bool told = !store_.exists() || !stored.name.empty();
        Kept& kept = at->second;
        set_clock(kept, 0, 0);
        kept.process_watch.reset();
        kept = {.held = std::move(held), .socket = std::move(socket), .process = std::move(process)};
        set_clock(kept, gone_usec, hold_usec);
        watch_process(kept);
        if (!kept.held.unit.empty()) {
                units_.want();
        }
        look_at(key);
        return told;
}

void Holds::pass_on(const HoldKey& key, const Peer& peer, std::int64_t registered_usec, OwnedFd process) {
        const auto found = kept_.find(key);
        if (found == kept_.end()) {
                return;
        }
        Kept& kept = found->second;
        kept.process_watch.reset();
        kept.process = std::move(process);
        kept.held.unit = peer.unit;
        kept.held.nested = peer.nested;
        kept.held.registered_usec = registered_usec;
        kept.undelivered = false;
        set_clock(kept, 0, kept.held.hold_usec);
        watch_process(kept);
        if (!peer.unit.empty()) {
                units_.want();
        }
        look_at(key);
}

void Holds::take_back(const HoldKey& key) {
        if (const auto found = kept_.find(key); found != kept_.end() && found->second.held.gone_usec == 0) {
                found->second.undelivered = true;
                set_gone(found->second, steady_usec());
        }
}

void Holds::set_span(const HoldKey& key, std::int64_t hold_usec) {
        if (const auto found = kept_.find(key); found != kept_.end()) {
                set_clock(found->second, found->second.held.gone_usec, hold_usec);
        }
}

void Holds::release(const HoldKey& key) {
        const auto found = kept_.find(key);
        if (found == kept_.end()) {
                return;
        }
        set_clock(found->second, 0, 0);
        std::vector<OwnedFd> socket;
        socket.push_back(std::move(found->second.socket));
        const auto cookie = key.cookie;  // the key may be of what ends here
        kept_.erase(found);
        const auto stored = stored_.find(cookie);
        if (--stored->second.services == 0) {
                if (const std::string& name = stored->second.name; !name.empty()) {
                        store_.remove(name);
                        names_.release(name);
                }
                stored_.erase(stored);
        }
        closer_.close(std::move(socket));
}

void Holds::forget_stored(const std::string& name, OwnedFd fd) {
        store_.remove(name);
        closer_.close_unseen(std::move(fd));
}

std::size_t Holds::unstored() const {
        return store_.exists() ? static_cast<std::size_t>(std::ranges::count_if(
                                         stored_, [](const auto& entry) { return entry.second.name.empty(); }))
                               : 0;
}

const Held* Holds::find(const HoldKey& key) const {
        const auto found = kept_.find(key);
        return found == kept_.end() ? nullptr : &found->second.held;
}

std::vector<HoldKey> Holds::keys_of(const std::string& service) const {
        std::vector<HoldKey> result;
        for (auto at = kept_.lower_bound({service, 0}); at != kept_.end() && at->first.service == service; at++) {
                result.push_back(at->first);
        }
        return result;
}

OwnedFd Holds::duplicate(const HoldKey& key) const {
        const auto found = kept_.find(key);
        return found == kept_.end() ? OwnedFd() : OwnedFd(fcntl(found->second.socket.get(), F_DUPFD_CLOEXEC, 3));
}

void Holds::settle(const std::string& service, std::function<void()> then) {
        // Called when the last of those that hold it has let go of it.
        const std::shared_ptr<void> settled(nullptr, [then = std::move(then), open = open_](void*) {
                (void)guarded([&] {
                        if (*open) {
                                then();
                        }
                });
        });
        for (const auto& key : keys_of(service)) {
                look_at(key, [settled] {});
        }
}

// `then` ends with the answer.
void Holds::look_at(const HoldKey& key, const std::function<void()>& then) {
        const auto found = kept_.find(key);
        if (found == kept_.end()) {
                return;
        }
        const Held& held = found->second.held;
        if (!held.unit.empty() && units_.pending()) {
                if (then) {
                        waiting_.emplace_back(key, then);
                }
                return;  // as soon as the bus answers, or does not
        }
        if (held.unit.empty() || !units_.connected()) {
                return judge(key, nullptr);
        }
        units_.ask(held.unit, [this, key, registered = held.registered_usec, then](const UnitState* state) {
                const Held* now = find(key);
                if (now == nullptr || now->registered_usec != registered) {
                        return;  // of another registrant since
                }
                if (state == nullptr && units_.connected()) {
                        return ask_again_later();  // PID 1 is busy: that says nothing of the unit
                }
                judge(key, state);
        });
}

void Holds::judge(const HoldKey& key, const UnitState* state) {
        Kept& kept = kept_.at(key);
        if (state == nullptr) {  // what is known is the process
                if (kept.held.gone_usec == 0 && has_ended(kept.process.get())) {
                        set_gone(kept, steady_usec());
                }
                return;
        }
        if (!state->triggered_by.empty()) {
                return end(key, HoldEnd::kActivated);
        }
        switch (presence_of(*state, kept.held.registered_usec)) {
        case Presence::kThere:
                // A unit that holds other managers or containers says nothing of what ends within.
                if (kept.held.nested && has_ended(kept.process.get())) {
                        if (kept.held.gone_usec == 0) {
                                set_gone(kept, steady_usec());
                        }
                } else if (kept.held.gone_usec != 0 && !kept.undelivered) {
                        set_clock(kept, 0, kept.held.hold_usec);
                        const Held copy = kept.held;
                        hooks_.there(copy);
                }
                return;
        case Presence::kStopped:
                return end(key, HoldEnd::kStopped);
        case Presence::kGone:
                if (kept.held.gone_usec == 0) {
                        const auto ended = state->ended_usec;
                        set_gone(kept, ended > kept.held.registered_usec ? ended : steady_usec());
                }
        }
}

void Holds::set_gone(Kept& kept, std::int64_t gone_usec) {
        set_clock(kept, gone_usec, kept.held.hold_usec);
        const Held copy = kept.held;  // it may be released by what follows
        hooks_.gone(copy);
}

void Holds::end(const HoldKey& key, HoldEnd why) {
        const Held held = kept_.at(key).held;
        release(key);
        hooks_.ended(held, why);
}

void Holds::watch_process(Kept& kept) {
        if (!kept.process) {
                return;  // look_at() follows
        }
        struct Context {
                Holds* holds;
                HoldKey key;
        };
        sd_event_source* source = nullptr;
        auto context = std::make_unique<Context>(Context{this, kept.held.key});
        const int r = sd_event_add_io(
                event_, &source, kept.process.get(), EPOLLIN,
                [](sd_event_source* ended, int, std::uint32_t, void* userdata) {
                        sd_event_source_set_enabled(ended, SD_EVENT_OFF);
                        const auto [holds, key] = *static_cast<Context*>(userdata);  // copies: this may end
                        return guarded([&, holds = holds, key = key] { holds->look_at(key); });
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
        std::vector<HoldKey> keys;  // what is looked at may be released
        for (const auto& [key, kept] : kept_) {
                if (concerned(kept.held)) {
                        keys.push_back(key);
                }
        }
        for (const auto& key : keys) {
                look_at(key);
        }
}

void Holds::ask_again_later() {
        constexpr std::uint64_t kLaterUsec = 2'000'000;
        if (again_) {
                return;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, kLaterUsec, 0,
                [](sd_event_source*, std::uint64_t, void* self) {
                        auto* holds = static_cast<Holds*>(self);
                        holds->again_.reset();
                        return guarded(
                                [&] { holds->look_at_each([](const Held& held) { return !held.unit.empty(); }); });
                },
                this);
        again_.reset(r < 0 ? nullptr : source);
}

void Holds::set_clock(Kept& kept, std::int64_t gone_usec, std::int64_t hold_usec) {
        Held& held = kept.held;
        const auto before = ends_.empty() ? 0 : ends_.begin()->first;
        if (held.gone_usec != 0) {
                ends_.erase({held.gone_usec + held.hold_usec, held.key});
        }
        held.gone_usec = gone_usec;
        held.hold_usec = hold_usec;
        if (gone_usec != 0) {
                ends_.insert({gone_usec + hold_usec, held.key});
        }
        if (before != (ends_.empty() ? 0 : ends_.begin()->first)) {
                set_timer();
        }
}

void Holds::set_timer() {
        const auto next = ends_.empty() ? 0 : ends_.begin()->first;
        timer_.reset();
        if (next == 0) {
                return;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time(
                event_, &source, CLOCK_MONOTONIC, static_cast<std::uint64_t>(next), 1,
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([&] { static_cast<Holds*>(self)->expire(); });
                },
                this);
        timer_.reset(r < 0 ? nullptr : source);
}

void Holds::expire() {
        const auto now = steady_usec();
        std::vector<HoldKey> over;
        for (const auto& [when, key] : ends_) {
                if (when > now) {
                        break;
                }
                over.push_back(key);
        }
        for (const auto& key : over) {
                end(key, HoldEnd::kExpired);
        }
        set_timer();
}

}  // namespace sockbroker
