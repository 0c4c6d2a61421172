// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/routes.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "broker/base/wall_clock.h"

namespace sockbroker {

namespace {

constexpr std::int64_t kGatherUsec = 5'000;    // several sockets of a service often come together
constexpr std::int64_t kLookUsec = 1'000'000;  // at least so often all are looked at
constexpr std::int64_t kRestOfLook = 9;        // of the time that the last look at all took
constexpr std::int64_t kAskUnitsUsec = 5'000'000;

}  // namespace

Routes::Routes(sd_event* event, Worker& disk, RoutesOptions options, const Registry& registry, ServiceEntries& entries,
               Audit& audit)
        : event_(event),
          options_(std::move(options)),
          registry_(registry),
          entries_(entries),
          audit_(audit),
          memory_(options_.memory_path),
          saves_(disk, options_.memory_path),
          link_(event, options_.socket_path,
                {.reported = [this](const routes::Report& report) { reported(report); },
                 .lost =
                         [this](const std::string& why) {
                                 lost_ = why;
                                 audit_.note(4, warnings().back());
                                 finish_waiting(true);
                         }}) {
        if (!memory_.unread().empty()) {
                audit_.note(3, warnings().front());
        }
        memory_.when_changed([this](std::string text) {
                const auto number = ++changes_;
                saves_.write(std::move(text));
                saves_.when_written([this, number](const Result<void>& kept) {
                        if (!kept) {
                                audit_.note(3, kept.error().text());
                        } else if (number == changes_) {
                                memory_.saved();
                        }
                });
        });
        sd_event_source* source = nullptr;
        if (sd_event_add_time(
                    event_, &source, CLOCK_MONOTONIC, UINT64_MAX, 1'000,
                    [](sd_event_source*, std::uint64_t, void* self) {
                            return guarded([&] {
                                    auto* routes = static_cast<Routes*>(self);
                                    routes->due_usec_ = 0;
                                    routes->evaluate();
                            });
                    },
                    this) >= 0) {
                sd_event_source_set_enabled(source, SD_EVENT_OFF);
                timer_.reset(source);
        }
}

Routes::~Routes() = default;

void Routes::schedule(std::int64_t at_usec) {
        if (due_usec_ != 0 && due_usec_ <= at_usec) {
                return;
        }
        due_usec_ = at_usec;
        sd_event_source_set_time(timer_.get(), static_cast<std::uint64_t>(at_usec));
        sd_event_source_set_enabled(timer_.get(), SD_EVENT_ONESHOT);
}

void Routes::take(std::shared_ptr<const RoutePlan> plan) {
        if (plan == nullptr) {
                return;  // no policy could be taken: what stands is the best that is known
        }
        const bool first = plan_ == nullptr;
        plan_ = left_ ? std::make_shared<const RoutePlan>() : std::move(plan);
        withdrawn_ = false;
        std::erase_if(services_, [&](const auto& entry) { return !plan_->announcing.contains(entry.first); });
        for (const auto& [name, announcing] : plan_->announcing) {
                services_[name];
        }
        if (first) {
                ask_until_usec_ = steady_usec() + kAskUnitsUsec;
        }
        if (units_ == nullptr && !plan_->announcing.empty()) {
                units_ = std::make_unique<AnnounceUnits>(event_, [this] {
                        look_at_all_ = true;
                        schedule(std::max(steady_usec() + kGatherUsec, rest_until_usec_));
                });
                units_->want();
        }
        auto& local = kind(routes::Kind::kLocal);
        if (told_any_ || memory_.may_stand() || !plan_->empty()) {
                if (local.told == nullptr || *local.told != plan_->local) {
                        tell(routes::Kind::kLocal, RouteLink::List(plan_, &plan_->local));
                }
                kind(routes::Kind::kAnnounce).told.reset();  // of other prefixes maybe
        }
        look_at_all_ = true;
        evaluate();
}

void Routes::leave() {
        left_ = true;
        take(std::make_shared<const RoutePlan>());
}

void Routes::look_at(const std::string& service) {
        if (services_.contains(service)) {
                to_look_at_.insert(service);
                schedule(steady_usec() + kGatherUsec);
        }
}

// Whether any live socket whose unit is up serves it.
Routes::Judgement Routes::judge_one(const std::string& name, Protocol protocol, Family family) {
        const auto registrations = registry_.registrations(name);
        const Serving serving(registrations, registry_.distribution(name));
        Judgement result{.up = false,
                         .why = fmt::format("no live socket serves {} over {}", to_string(protocol), to_string(family)),
                         .since_usec = INT64_MAX};
        for (const auto& one : registrations) {
                if (!one.serves_in(protocol, family) || one.held() || !serving.is_live(one)) {
                        continue;
                }
                const auto up = units_->is_up(one.registrant.unit);
                if (up == std::optional(true)) {
                        result.since_usec = std::min(result.since_usec, one.registered_usec);
                        result.up = true;
                } else if (result.up != std::optional(true)) {
                        result.why = fmt::format("{} is not active", one.registrant.unit);
                        result.up = up.has_value() ? result.up : std::nullopt;
                }
        }
        return result;
}

Routes::Judgement Routes::judge(const std::string& name, const RoutePlan::Announcing& announcing) {
        std::vector<std::optional<bool>> served;
        Judgement result;
        const bool any = announcing.when == Announce::kAny;
        result.since_usec = any ? INT64_MAX : 0;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        if (!announcing.used.at(static_cast<std::size_t>(protocol))
                                     .at(static_cast<std::size_t>(family))) {
                                continue;
                        }
                        auto one = judge_one(name, protocol, family);
                        served.push_back(one.up);
                        if (one.up == std::optional(true)) {
                                result.since_usec = any ? std::min(result.since_usec, one.since_usec)
                                                        : std::max(result.since_usec, one.since_usec);
                        } else if (result.why.empty()) {
                                result.why = std::move(one.why);
                        }
                }
        }
        result.up = is_up(announcing.when, served);
        return result;
}

void Routes::evaluate(const std::string& name, const RoutePlan::Announcing& announcing, Service& service) {
        auto judged = judge(name, announcing);
        const auto now = steady_usec();
        if (judged.up || service.up) {
                service.unknown_usec = 0;
        } else if (service.unknown_usec == 0) {
                service.unknown_usec = now;
        } else if (now >= service.unknown_usec + kAskUnitsUsec) {
                judged.up = true;  // nobody says what the units do: the sockets alone count
        }
        const auto before = service.up;
        service.up = judged.up ? judged.up : service.up;
        service.why = std::move(judged.why);
        if (service.up) {
                // Since it was registered, where this is the first that anybody knows of it.
                const auto since = before ? now : *service.up ? std::min(judged.since_usec, now) : 0;
                service.damping.set(*service.up, memory_.drained().contains(name), since);
        }
}

void Routes::evaluate() {
        if (plan_ == nullptr) {
                return;
        }
        const auto began = steady_usec();
        const bool all = std::exchange(look_at_all_, false) || began >= look_at_all_usec_;
        for (auto& [name, service] : services_) {
                if (all || to_look_at_.contains(name)) {
                        evaluate(name, plan_->announcing.find(name)->second, service);
                }
        }
        to_look_at_.clear();
        if (all && units_ != nullptr) {
                units_->forget_others();
        }
        settle();
        finish_waiting(false);
        const auto now = steady_usec();
        if (all) {
                rest_until_usec_ = now + (now - began) * kRestOfLook;
                look_at_all_usec_ = now + kLookUsec;
        }
        if (!services_.empty() || !waiting_.empty()) {
                schedule(look_at_all_usec_);
        }
}

void Routes::settle() {
        const auto now = steady_usec();
        std::vector<bool> up(services_.size());
        std::set<std::string, std::less<>> announced;
        bool known = true;
        for (auto& [name, service] : services_) {
                known = known && service.up.has_value();
                const bool stands = service.damping.settle(now, options_.spans) && !withdrawn_;
                up[plan_->announcing.find(name)->second.number] = stands;
                if (stands) {
                        announced.insert(announced.end(), name);
                }
                if (const auto next = service.damping.next_usec(options_.spans); next != 0) {
                        schedule(std::max(next, now));
                }
        }
        auto& state = kind(routes::Kind::kAnnounce);
        // Before the first word it has to be known of all, or what stands would go for want of an answer.
        const bool due = state.told == nullptr ? known || now >= ask_until_usec_ : announced != announced_;
        if (!due || !(told_any_ || memory_.may_stand() || !plan_->empty())) {
                return;
        }
        announced_ = std::move(announced);
        auto list = std::make_shared<const std::vector<Prefix>>(plan_->announced_while(up));
        tell(routes::Kind::kAnnounce, std::move(list));
}

void Routes::tell(routes::Kind of, RouteLink::List list) {
        told_any_ = true;
        if (!list->empty()) {
                if (const auto written = memory_.set_may_stand(true); !written) {
                        audit_.note(3, written.error().text());
                }
        }
        auto& state = kind(of);
        state.told = list;
        state.number = link_.tell(of, std::move(list));
}

void Routes::drain(const std::string& service, bool drained, Drained done) {
        struct Outcome {
                Drained done;
                std::optional<bool> in_kernel;
                std::optional<Result<void>> kept;

                void tell() const {
                        if (in_kernel && kept) {
                                done(*in_kernel, *kept);
                        }
                }
        };
        const auto outcome = std::make_shared<Outcome>(Outcome{.done = std::move(done)});
        // What counts is what the disk has in the end.
        (void)(drained ? memory_.drain(service, wall_usec()) : memory_.undrain(service));
        saves_.when_written([outcome](const Result<void>& kept) {
                outcome->kept = kept;
                outcome->tell();
        });
        if (services_.contains(service)) {
                to_look_at_.insert(service);
        }
        evaluate();
        when_in_kernel([outcome](bool in_kernel) {
                outcome->in_kernel = in_kernel;
                outcome->tell();
        });
}

void Routes::withdraw_all(Done done) {
        withdrawn_ = true;
        if (told_any_ || memory_.may_stand()) {
                announced_.clear();
                tell(routes::Kind::kAnnounce, std::make_shared<const std::vector<Prefix>>());
        }
        when_in_kernel(std::move(done));
}

void Routes::stay() {
        withdrawn_ = false;
        look_at_all_ = true;
        evaluate();
}

Routes::OfService Routes::of(const std::string& service) const {
        return {.announced = services_.contains(service) ? std::optional(standing_.contains(service)) : std::nullopt,
                .drained = memory_.drained().contains(service)};
}

}  // namespace sockbroker
