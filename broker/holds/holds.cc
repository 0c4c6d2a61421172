// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/holds.h"

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>

namespace sockbroker {

// Where nobody can tell, who is of no unit has ended: nothing else would ever say so.
bool Holds::Kept::process_ended() const {
        if (!process.pidfd) {
                return process.ended || held.unit.empty();
        }
        pollfd entry{.fd = process.pidfd.get(), .events = POLLIN, .revents = 0};
        return poll(&entry, 1, 0) > 0;
}

Holds::Holds(sd_event* event, hands::Crew& crew, bool has_store, Hooks hooks)
        : event_(event),
          crew_(crew),
          has_store_(has_store),
          hooks_(std::move(hooks)),
          give_up_(std::make_shared<const InHolder::GiveUp>([this](const std::string& service, std::uint64_t cookie) {
                  (void)guarded([&] {
                          if (!kept_.contains({service, cookie})) {
                                  crew_.release(service, cookie);
                          }
                  });
          })),
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

void Holds::store(Stored& stored, const HoldKey& key, const std::string& name) {
        if (!stored.name.empty() || !has_store_) {
                return;
        }
        if (!name.empty()) {
                names_.reserve(name);
                stored.name = name;
        } else if (const auto fresh = names_.take()) {
                stored.name = *fresh;
                crew_.store(key.service, key.cookie, *fresh);
        }
}

std::shared_ptr<InHolder> Holds::in_holder(std::string service) const {
        return std::make_shared<InHolder>(std::move(service), give_up_);
}

void Holds::adopt(const std::string& service, std::vector<std::uint64_t> cookies, std::vector<OwnedFd> sockets,
                  hands::Charge charge, std::function<void(const std::vector<std::uint64_t>&)> lost) {
        auto expected = cookies;
        auto& being_adopted = being_adopted_[service];
        auto adopting = being_adopted.lock();
        if (!adopting) {
                adopting = std::make_shared<Adopting>();
                being_adopted = adopting;
        }
        adopting->orders++;
        crew_.adopt(service, std::move(cookies), std::move(sockets), std::move(charge),
                    [this, open = open_, service, cookies = std::move(expected), adopting = std::move(adopting),
                     lost = std::move(lost)](const hands::Taken&) {
                            if (!*open) {
                                    return;
                            }
                            std::vector<std::uint64_t> missing;
                            std::ranges::copy_if(cookies, std::back_inserter(missing), [&](std::uint64_t cookie) {
                                    return kept_.contains({service, cookie}) && !crew_.keeps(service, cookie);
                            });
                            lost(missing);
                            if (--adopting->orders == 0) {
                                    adopting->waiting.clear();
                            }
                    });
}

bool Holds::keep(Held held, Process process, const std::string& stored_as) {
        const HoldKey key = held.key;
        const auto gone_usec = std::exchange(held.gone_usec, 0);
        const auto hold_usec = held.hold_usec;
        const auto [at, fresh] = kept_.try_emplace(key);
        Stored& stored = stored_[key.cookie];
        stored.services += fresh ? 1 : 0;
        store(stored, key, stored_as);
        const bool told = !has_store_ || !stored.name.empty();
        Kept& kept = at->second;
        set_clock(kept, 0, 0);
        kept.process_watch.reset();
        kept = {.held = std::move(held), .process = std::move(process)};
        set_clock(kept, gone_usec, hold_usec);
        watch_process(kept);
        if (!kept.held.unit.empty()) {
                units_.want();
        }
        if (sample_every_usec_ == 0 || sampling_of(hold_usec) < sample_every_usec_) {
                sample_in(sampling_of(hold_usec));
        }
        look_at(key);
        return told;
}

void Holds::pass_on(const HoldKey& key, const Peer& peer, std::int64_t registered_usec, Process process) {
        const auto found = kept_.find(key);
        if (found == kept_.end()) {
                return;
        }
        Kept& kept = found->second;
        kept.process_watch.reset();
        kept.process = std::move(process);
        kept.held.unit = peer.unit;
        kept.held.registered_usec = registered_usec;
        kept.held.alone = false;
        kept.held.until_usec = 0;
        kept.undelivered = false;
        kept.others_read = false;
        kept.own = false;
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

void Holds::set_until(const HoldKey& key, std::int64_t until_usec) {
        if (const auto found = kept_.find(key); found != kept_.end()) {
                found->second.held.until_usec = until_usec;
                set_clock(found->second, found->second.held.gone_usec, found->second.held.hold_usec);
        }
}

void Holds::release(const HoldKey& key) {
        const auto found = kept_.find(key);
        if (found == kept_.end()) {
                return;
        }
        set_clock(found->second, 0, 0);
        const auto ended = kept_.extract(found);  // the key may be of what ends here
        const auto& [service, cookie] = ended.key();
        std::string name;
        const auto stored = stored_.find(cookie);
        if (--stored->second.services == 0) {
                name = std::move(stored->second.name);
                stored_.erase(stored);
        }
        crew_.release(service, cookie, std::move(name));
}

void Holds::forget_stored(const std::string& name, OwnedFd fd) {
        constexpr uid_t kNobody = static_cast<uid_t>(-1);
        static const std::string kStrangers = "*";  // no service is called that
        const std::uint64_t number = last_stranger_--;
        std::vector<OwnedFd> one;
        one.push_back(std::move(fd));
        crew_.adopt(kStrangers, {number}, std::move(one), {.uid = kNobody, .unit = {}, .admitted = true},
                    [this, open = open_, number, name](const hands::Taken&) {
                            if (*open) {
                                    crew_.release(kStrangers, number, has_store_ ? name : "");
                            }
                    });
}

std::size_t Holds::unstored() const {
        return has_store_ ? static_cast<std::size_t>(std::ranges::count_if(
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
        if (const auto found = being_adopted_.find(service); found != being_adopted_.end()) {
                if (const auto adopting = found->second.lock()) {
                        adopting->waiting.push_back(settled);
                }
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
                if (state != nullptr && !state->triggered_by.empty() && !kept_.at(key).own) {
                        return find_origin(key, state->triggered_by, then);
                }
                judge(key, state);
        });
}

struct Holds::Origin {
        std::int64_t registered_usec = 0;
        std::size_t unanswered = 0;
        bool is_known = true;
        bool manager = false;
        std::function<void()> then;
};

void Holds::find_origin(const HoldKey& key, const std::vector<std::string>& sockets,
                        const std::function<void()>& then) {
        const auto origin = std::make_shared<Origin>(Origin{
                .registered_usec = kept_.at(key).held.registered_usec, .unanswered = sockets.size(), .then = then});
        for (const auto& socket : sockets) {
                units_.ask_listens(socket, [this, key, origin](const UnitState* state) {
                        const Held* held = find(key);
                        if (held == nullptr || held->registered_usec != origin->registered_usec) {
                                return;
                        }
                        if (state == nullptr) {
                                origin->is_known = false;
                        } else if (may_have_opened(state->listens, held->protocol, held->bound)) {
                                origin->manager = true;
                        }
                        if (--origin->unanswered == 0) {
                                origin_known(key, *origin);
                        }
                });
        }
}

void Holds::origin_known(const HoldKey& key, const Origin& origin) {
        if (origin.manager) {
                return end(key, HoldEnd::kActivated);
        }
        if (!origin.is_known) {
                return units_.connected() ? ask_again_later() : judge(key, nullptr);
        }
        kept_.at(key).own = true;
        look_at(key, origin.then);
}

void Holds::judge(const HoldKey& key, const UnitState* state) {
        Kept& kept = kept_.at(key);
        Held& held = kept.held;
        if (state == nullptr) {  // what is known is the process
                if (held.gone_usec == 0 && kept.process_ended()) {
                        set_gone(kept, steady_usec());
                }
                return;
        }
        switch (presence_of(*state, held.registered_usec)) {
        case Presence::kThere:
                // One process of many: a worker, what runs in a container or a user manager. Clients of it are not to
                // wait for as long as the unit goes on.
                if (!kept.others_read && kept.process_ended()) {
                        if (held.gone_usec == 0) {
                                held.alone = true;
                                set_gone(kept, steady_usec());
                        }
                } else if (held.gone_usec != 0 && !kept.undelivered) {
                        back(kept);
                }
                return;
        case Presence::kStopped:
                if (held.until_usec <= steady_usec()) {
                        return end(key, HoldEnd::kStopped);
                }
                [[fallthrough]];
        case Presence::kGone:
                held.alone = false;
                if (held.gone_usec == 0) {
                        const auto ended = state->ended_usec;
                        set_gone(kept, ended > held.registered_usec ? ended : steady_usec());
                }
        }
}

void Holds::back(Kept& kept) {
        const Held copy = kept.held;
        set_clock(kept, 0, kept.held.hold_usec);
        kept.held.alone = false;
        hooks_.there(copy);
}

void Holds::set_gone(Kept& kept, std::int64_t gone_usec) {
        if (kept.held.until_usec <= steady_usec()) {
                kept.held.until_usec = 0;
        }
        kept.unread = {};  // what it read itself, before its end, says nothing of others
        set_clock(kept, gone_usec, kept.held.hold_usec);
        if (!hooks_.gone(kept.held)) {
                release(kept.held.key);
        }
}

void Holds::end(const HoldKey& key, HoldEnd why) {
        const Held held = kept_.at(key).held;
        release(key);
        hooks_.ended(held, why);
}

void Holds::watch_process(Kept& kept) {
        if (!kept.process.pidfd) {
                return;  // look_at() follows
        }
        struct Context {
                Holds* holds;
                HoldKey key;
        };
        sd_event_source* source = nullptr;
        auto context = std::make_unique<Context>(Context{this, kept.held.key});
        const int r = sd_event_add_io(
                event_, &source, kept.process.pidfd.get(), EPOLLIN,
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

}  // namespace sockbroker
