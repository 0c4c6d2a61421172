// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/crew_state.h"

#include <sys/socket.h>

#include <algorithm>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "broker/hands/queue_state.h"

namespace sockbroker::hands {

namespace {

constexpr std::uint64_t kTickUsec = 25'000;

unsigned by_processors() {
        return std::clamp(std::thread::hardware_concurrency(), 2U, 4U);
}

}  // namespace

Crew::State::State(sd_event* event, Zygote& zygote, const Options& options, Hooks hooks)
        : event_(event),
          zygote_(zygote),
          options_(options),
          hooks_(std::move(hooks)),
          roster_(event, zygote, options,
                  {.answered = [this](Hand& hand, ParsedAnswer& answer) { return answered(hand, answer); },
                   .gone = [this](Hand& hand) { lost(hand.child()); }}),
          hands_(roster_, options.hands == 0 ? by_processors() : options.hands, hooks_, last_job_),
          doors_(event, zygote, roster_, options.control, options.labels,
                 {.connected = [this](Connection one) { connected(std::move(one)); },
                  .refused = [this](const RefusedReport& report) { hooks_.refused(report); },
                  .missing = [this] { wake(); }}) {}

Result<void> Crew::State::start() {
        auto watched =
                zygote_.watch(event_, {.forked = [this](std::uint32_t child, pid_t pid, int) { forked(child, pid); },
                                       .exited = [this](std::uint32_t child) { exited(child); },
                                       .died = [this] { hooks_.died(); }});
        if (!watched) {
                return watched;
        }
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, 0, 1'000,
                [](sd_event_source* timer, std::uint64_t, void* self) {
                        (void)guarded([&] { static_cast<State*>(self)->tick(); });
                        (void)sd_event_source_set_time_relative(timer, kTickUsec);
                        return 0;
                },
                this);
        if (r < 0) {
                return fail(r, "cannot make the timer of the hands");
        }
        timer_.reset(source);
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (auto opened = doors_.start(); !opened) {
                return opened;
        }
        hands_.intake.fill();
        hands_.disposal.fill();
        wake();
        return {};
}

bool Crew::State::push(std::unique_ptr<Job>& job) {
        job->order.job = ++last_job_;
        job->since_usec = steady_usec();
        if (job->barred) {
                wake();
                return hands_.quarantine.push(job);
        }
        const bool suspect = goes_aside(*job, job->since_usec);
        if (suspect && !job->order.probe && slow_.has(job->charge, job->since_usec) && put_aside(job)) {
                wake();
                return true;
        }
        give(job);
        wake(suspect);
        return true;
}

// Sockets for which there is no holder are taken like those of a service without HoldSec=: they are not kept.
void Crew::State::give(std::unique_ptr<Job>& job) {
        if (job->order.kind == OrderKind::kTake && !job->holder.empty() && !hands_.holders.may_hold(job->holder)) {
                job->holder.clear();
                job->order.keep = false;
        }
        if (!job->holder.empty()) {
                hands_.holders.push(job);
        } else {
                (job->order.probe ? hands_.intake : hands_.disposal).push(job);
        }
}

void Crew::State::connected(Connection one) {
        orphans_.opened();
        if (!succeeds([&] { hooks_.connected(std::move(one)); })) {
                orphans_.closed();
                throw std::bad_alloc();
        }
}

void Crew::State::close(std::uint64_t id, OwnedFd connection, Charge charge) noexcept {
        hands_.cancel(id);
        const bool in_use = hands_.disown(id) || roster_.is_at(id);
        shutdown(connection.get(), SHUT_RDWR);
        orphans_.closed();
        if (doors_.current().has(id)) {
                connection.reset();  // the door's is the last
                doors_.current().close(id, roster_.offender(charge), roster_.bars(charge), in_use);
                return;
        }
        if (in_use || look_at_queue(connection.get()) == QueueState::kRecord) {
                orphans_.add(std::move(connection), std::move(charge));
                close_orphans();
        }
}

void Crew::State::release(const std::string& holder, std::uint64_t cookie, std::string name) noexcept {
        hands_.holders.release(holder, cookie, std::move(name));
        hands_.holders.dispatch(steady_usec());
        wake();
}

void Crew::State::close_orphans() noexcept {
        while (!orphans_.empty()) {
                std::unique_ptr<Job> job;
                const bool pushed = succeeds([&] {
                        job = orphans_.next();
                        job->barred = roster_.bars(job->charge);
                        if (!push(job)) {
                                throw std::bad_alloc();
                        }
                });
                if (!pushed) {
                        if (job) {
                                orphans_.give_back(*job);
                        }
                        wake();  // and try again
                        return;
                }
        }
}

bool Crew::State::answered(Hand& hand, ParsedAnswer& answer) {
        const std::int64_t now = steady_usec();
        switch (answer.kind) {
        case AnswerKind::kBusy:
                if (hand.role() != Role::kDisposal || hand.batch() != nullptr) {
                        return false;
                }
                begin_batch(hand, roster_.charge_of(answer.offender, answer.uid), now);
                return true;
        case AnswerKind::kIdle:
                return end_batch(hand, now);
        case AnswerKind::kTaken:
                return taken(hand, answer);
        case AnswerKind::kForgotten:
                if (!hands_.holders.forgotten(hand, answer.job)) {
                        return roster_.is_leaving(hand.child());
                }
                wake();  // it may have nothing to keep any more
                return true;
        case AnswerKind::kDone:
                break;
        }
        Job* const job = hand.job();
        if (job == nullptr || job->order.job != answer.job || (!job->order.probe && !answer.found.empty())) {
                // Of one that was left behind: nobody waits for it any more.
                return roster_.is_leaving(hand.child());
        }
        if (hand.role() == Role::kQuarantine) {
                finish_quarantined(hand, answer);
                return true;
        }
        if (job->order.kind == OrderKind::kPut && !job->is_taken) {
                job->is_taken = true;  // the core's copies are closed: now it may close its own
                return hand.order_again({.kind = OrderKind::kRelease, .job = answer.job}, now) == 0;
        }
        finish(hand, answer, now);
        return true;
}

void Crew::State::begin_batch(Hand& hand, Charge whose, std::int64_t now) {
        hands_.disposal.begin(whose);
        hand.begin_batch(std::move(whose), now);
        wake();
}

bool Crew::State::end_batch(Hand& hand, std::int64_t now) {
        const auto took = now - hand.since_usec();
        const auto whose = hand.end_batch(now);
        if (!whose) {
                return false;
        }
        hands_.disposal.end(*whose, took, now);
        hands_.disposal.dispatch(now);
        return true;
}

bool Crew::State::taken(Hand& hand, const ParsedAnswer& answer) {
        if (const auto late = roster_.unfinished(hand.child())) {
                call(late->taken);
                call(late->done, {.outcome = Outcome::kLate});
                return true;
        }
        Job* const job = hand.job();
        if (job == nullptr || job->order.job != answer.job || job->is_taken || job->order.source != Source::kNotify) {
                return roster_.is_leaving(hand.child());
        }
        job->is_taken = true;
        hand.call([&] { call(job->taken); });
        return true;
}

void Crew::State::finish(Hand& hand, ParsedAnswer& answer, std::int64_t now) {
        const auto job = hand.end_job();
        Pool* const pool = hands_.pool_of(hand.role());
        if (pool != nullptr) {
                pool->end(job->charge, now - hand.since_usec(), now);
        } else {
                hands_.holders.note(hand, *job, answer);
        }
        if (job->charge.admitted && job->order.probe) {
                roster_.note_served(job->charge.uid);
        }
        const Taken result{.errnum = answer.errnum,
                           .truncated = answer.truncated,
                           .staging = hand.staging,
                           .found = std::move(answer.found),
                           .count = answer.count};
        hand.call([&] { call(job->done, result); });
        if (pool != nullptr) {
                pool->dispatch(now);
        } else {
                hands_.holders.dispatch(now);
        }
}

void Crew::State::finish_quarantined(Hand& hand, const ParsedAnswer& answer) {
        const std::uint32_t child = hand.child();
        const auto job = hand.end_job();
        const bool full = answer.errnum == EMFILE;
        hands_.quarantine.took(child, job->charge.uid, answer.count);
        if (full) {
                hands_.quarantine.refused(child);
                wake();
        }
        const Outcome kept = job->only_closed ? Outcome::kDone : Outcome::kBarred;
        call(job->done, {.outcome = full ? Outcome::kBusy : kept,
                         .errnum = answer.errnum,
                         .truncated = answer.truncated,
                         .count = answer.count});
        hands_.quarantine.dispatch(steady_usec());
}

void Crew::State::forked(std::uint32_t child, pid_t pid) {
        if (doors_.forked(child, pid)) {
                return;
        }
        const std::int64_t now = steady_usec();
        if (pid == 0) {
                if (auto hand = hands_.remove(child)) {
                        roster_.forget(*hand);
                }
                wake();
        } else {
                hands_.forked(child, pid, now);
        }
}

void Crew::State::exited(std::uint32_t child) {
        if (doors_.exited(child)) {
                return;
        }
        lost(child);  // if nobody has noticed yet
        hands_.quarantine.exited(child);
        const auto late = roster_.unfinished(child);
        if (roster_.exited(child)) {
                forgive();
        }
        if (late) {
                call(late->taken);
                call(late->done, {.outcome = Outcome::kLate});
        }
}

void Crew::State::lost(std::uint32_t child) {
        if (auto hand = hands_.remove(child)) {
                give_up(std::move(hand), Outcome::kLost);
        }
}

void Crew::State::give_up(std::unique_ptr<Hand> hand, Outcome why) noexcept {
        Pool* const pool = hands_.pool_of(hand->role());
        const auto now = steady_usec();
        const auto took = now - hand->since_usec();
        std::optional<Charge> charge = hand->end_batch(now);
        if (charge) {
                pool->end(*charge, took, now);
        }
        auto job = hand->end_job();
        Done done;
        if (job) {
                if (pool != nullptr) {
                        pool->end(job->charge, took, now);
                }
                if (!charge) {
                        charge = std::move(job->charge);
                }
                // One from the notify socket is answered when it is known whether it was consumed.
                if (job->order.kind != OrderKind::kTake || job->order.source != Source::kNotify || job->is_taken) {
                        done = std::exchange(job->done, nullptr);
                        job->taken = nullptr;
                }
        }
        const uid_t uid = charge ? charge->uid : 0;
        const bool charged = charge.has_value();
        // What PID 1 has of what a holder keeps it is to forget first. Otherwise it would be the last to close it, and
        // that takes as long as who has made the holder wait likes.
        const bool ends = why != Outcome::kLate || hand->role() != Role::kHolder;
        roster_.leave_behind(std::move(hand), std::move(charge), std::move(job), ends);
        if (charged && roster_.ledger().bars_uid(uid)) {
                doors_.current().bar(uid);
        }
        if (roster_.bars({.uid = kNobody})) {
                doors_.current().bar(kNobody);
        }
        if (pool != nullptr) {
                pool->fill();
        } else {
                hands_.quarantine.fill();
                hands_.holders.replace();
        }
        turn_away_barred(hands_.intake);
        turn_away_barred(hands_.disposal);
        wake();
        call(done, {.outcome = why});
        hands_.holders.tell_lost();
}

void Crew::State::wake(bool at_once) {
        constexpr std::uint64_t kLongAgo = 1;
        if (at_once) {
                (void)sd_event_source_set_time(timer_.get(), kLongAgo);
        } else if (!ticking_) {
                (void)sd_event_source_set_time_relative(timer_.get(), kTickUsec);
        }
        if (!std::exchange(ticking_, true)) {
                (void)sd_event_source_set_enabled(timer_.get(), SD_EVENT_ON);
        }
}

void Crew::State::tick() {
        doors_.reopen();
        for (Hand* const hand : hands_.working()) {
                const std::int64_t began = steady_usec();
                if (const auto slept = hand->slept_usec(began, kTickUsec); slept != 0) {
                        slow_.note(hand->job()->charge, slept, began);
                }
                // What it has said already counts, however late this loop is.
                if (hand->is_late(steady_usec()) && !hand->listen()) {
                        lost(hand->child());
                } else if (hand->is_late(steady_usec())) {
                        give_up(hands_.remove(hand->child()), Outcome::kLate);
                }
        }
        const std::int64_t now = steady_usec();
        close_orphans();
        put_aside_slow();
        while (const auto job = hands_.pop_older(now - kMaxWaitUsec)) {
                call(job->done, {.outcome = Outcome::kBusy});
        }
        hands_.fill();
        hands_.dispatch(now);
        hands_.holders.tell_lost();
        if (!hands_.holders.owes_a_word()) {
                roster_.end_left_behind();
        }
        if (orphans_.empty() && hands_.working().empty() && hands_.settled() && doors_.settled() &&
            !roster_.has_unended()) {
                ticking_ = false;
                (void)sd_event_source_set_enabled(timer_.get(), SD_EVENT_OFF);
        }
}

}  // namespace sockbroker::hands
