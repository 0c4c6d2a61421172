// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/crew_state.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "broker/hands/queue_state.h"
#include "broker/protocol/peek.h"

namespace sockbroker::hands {

namespace {

constexpr std::uint64_t kTickUsec = 25'000;
// Doors that were full of what is kept, and wait for something in it. One user cannot do that to all of them: his
// descriptors on their way are counted, 524,288 of a user of systemd's default, and each door has up to 32,768
// connections with one at least.
constexpr std::size_t kMaxEndingDoors = 24;

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
          intake_(Role::kIntake, options.hands == 0 ? by_processors() : options.hands, roster_),
          disposal_(Role::kDisposal, options.hands == 0 ? by_processors() : options.hands, roster_),
          quarantine_(roster_),
          holders_(roster_, hooks_, last_job_),
          door_(event, options.control, options.labels,
                {.connected = [this](Connection one) { connected(std::move(one)); },
                 .ended = [this] { door_ended(); }}) {
        ending_doors_.reserve(kMaxEndingDoors);
}

namespace {

Result<void> make_ready(int listener) {
        if (auto prepared = prepare_for_peeking(listener); !prepared) {
                return prepared;
        }
        // One that was passed may block, although those of systemd do not: accepting until nobody waits would hang the
        // door.
        const int flags = fcntl(listener, F_GETFL);
        if (flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) != 0) {
                return fail_errno("cannot make a listening socket of the broker non-blocking");
        }
        return {};
}

}  // namespace

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
        if (options_.control >= 0) {
                for (const int listener : {options_.control, options_.labels}) {
                        if (auto made = listener < 0 ? Result<void>() : make_ready(listener); !made) {
                                return made;
                        }
                }
                open_door();
                if (door_child_ == 0) {
                        return fail("cannot have the process made that accepts connections");
                }
        }
        intake_.fill();
        disposal_.fill();
        wake();
        return {};
}

bool Crew::State::push(std::unique_ptr<Job>& job) {
        job->order.job = ++last_job_;
        job->since_usec = steady_usec();
        if (job->barred) {
                wake();
                return quarantine_.push(job);
        }
        if (!job->holder.empty()) {
                holders_.push(job);
        } else {
                (job->order.probe ? intake_ : disposal_).push(job);
        }
        wake();
        return true;
}

void Crew::State::connected(Connection one) {
        if (orphans_.capacity() < orphans_.size() + open_ + 1) {
                orphans_.reserve(2 * (orphans_.size() + open_ + 1));
        }
        open_++;
        if (!succeeds([&] { hooks_.connected(std::move(one)); })) {
                open_--;
                throw std::bad_alloc();
        }
}

void Crew::State::close(std::uint64_t id, OwnedFd connection, Charge charge) noexcept {
        intake_.cancel(id);
        disposal_.cancel(id);
        holders_.cancel(id);
        const bool at_work = intake_.disown(id) || disposal_.disown(id) || holders_.disown(id);
        const bool in_use = at_work || roster_.is_at(id);
        shutdown(connection.get(), SHUT_RDWR);
        open_ -= open_ > 0 ? 1 : 0;
        if (door_.has(id)) {
                connection.reset();  // the door's is the last
                door_.close(id, roster_.offender(charge), roster_.bars(charge), in_use);
                return;
        }
        if (in_use || look_at_queue(connection.get()) == QueueState::kRecord) {
                orphans_.push_back({std::move(connection), std::move(charge)});
                close_orphans();
        }
}

void Crew::State::release(const std::string& holder, std::uint64_t cookie, std::string name) noexcept {
        holders_.release(holder, cookie, std::move(name));
        holders_.dispatch(steady_usec());
        wake();
}

void Crew::State::close_orphans() noexcept {
        while (!orphans_.empty()) {
                std::unique_ptr<Job> job;
                const bool pushed = succeeds([&] {
                        job = std::make_unique<Job>();
                        job->given.reserve(1);
                        job->order.kind = OrderKind::kPut;
                        job->charge = std::move(orphans_.back().charge);
                        job->barred = roster_.bars(job->charge);
                        job->given.push_back(std::move(orphans_.back().connection));
                        orphans_.pop_back();
                        if (!push(job)) {
                                throw std::bad_alloc();
                        }
                });
                if (!pushed) {
                        if (job && !job->given.empty()) {
                                orphans_.push_back({std::move(job->given.front()), std::move(job->charge)});
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
                if (!holders_.forgotten(hand, answer.job)) {
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
        disposal_.begin(whose);
        hand.begin_batch(std::move(whose), now);
        wake();
}

bool Crew::State::end_batch(Hand& hand, std::int64_t now) {
        const auto took = now - hand.since_usec();
        const auto whose = hand.end_batch(now);
        if (!whose) {
                return false;
        }
        disposal_.end(*whose, took, now);
        disposal_.dispatch(now);
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
        Pool* const pool = pool_of(hand.role());
        if (pool != nullptr) {
                pool->end(job->charge, now - hand.since_usec(), now);
        } else {
                holders_.note(hand, *job, answer);
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
                holders_.dispatch(now);
        }
}

void Crew::State::finish_quarantined(Hand& hand, const ParsedAnswer& answer) {
        const std::uint32_t child = hand.child();
        const auto job = hand.end_job();
        const bool full = answer.errnum == EMFILE;
        if (full) {
                quarantine_.retire_full(child);
                wake();
        }
        call(job->done, {.outcome = full ? Outcome::kBusy : Outcome::kBarred,
                         .errnum = answer.errnum,
                         .truncated = answer.truncated,
                         .count = answer.count});
        quarantine_.dispatch(steady_usec());
}

void Crew::State::forked(std::uint32_t child, pid_t pid) {
        if (child == door_child_) {
                if (pid == 0) {
                        door_child_ = 0;  // the timer tries again
                }
                return;
        }
        const std::int64_t now = steady_usec();
        if (pid == 0) {
                if (auto hand = remove(child)) {
                        roster_.forget(*hand);
                }
                wake();
        } else if (!intake_.forked(child, pid, now) && !disposal_.forked(child, pid, now) &&
                   !quarantine_.forked(child, pid, now)) {
                (void)holders_.forked(child, pid, now);
        }
}

void Crew::State::exited(std::uint32_t child) {
        if (child == door_child_) {
                door_.finish();  // which ends with ended()
        }
        if (std::erase(ending_doors_, child) != 0) {
                return;
        }
        lost(child);  // if nobody has noticed yet
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
        if (auto hand = remove(child)) {
                give_up(std::move(hand), Outcome::kLost);
        }
}

void Crew::State::give_up(std::unique_ptr<Hand> hand, Outcome why) noexcept {
        Pool* const pool = pool_of(hand->role());
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
                door_.bar(uid);
        }
        if (roster_.bars({.uid = kNobody})) {
                door_.bar(kNobody);
        }
        if (pool != nullptr) {
                pool->fill();
        } else {
                quarantine_.fill();
                holders_.replace();
        }
        turn_away_barred(intake_);
        turn_away_barred(disposal_);
        wake();
        call(done, {.outcome = why});
        holders_.tell_lost();
}

// What waited for a hand when its sender came to be barred. The queue of `notify` goes on by quarantine; a connection
// keeps its message, for the door.
void Crew::State::turn_away_barred(Pool& pool) noexcept {
        while (auto job = pool.pop_barred()) {
                const bool stays = job->order.kind == OrderKind::kTake && job->order.source == Source::kAttached;
                if (stays) {
                        call(job->done, {.outcome = Outcome::kBarred});
                        continue;
                }
                job->barred = job->order.keep = true;
                job->order.probe = false;
                bool pushed = false;
                (void)succeeds([&] { pushed = push(job); });
                if (pushed) {
                        continue;
                }
                if (job->order.kind == OrderKind::kPut && !job->given.empty()) {
                        orphans_.push_back({std::move(job->given.front()), std::move(job->charge)});  // has room
                } else {
                        call(job->done, {.outcome = Outcome::kBusy});
                }
        }
}

void Crew::State::forgive() {
        door_.unbar([&](uid_t uid) {
                return uid == kNobody ? !roster_.bars({.uid = kNobody}) : !roster_.ledger().bars_uid(uid);
        });
        door_.forgive([&](std::uint32_t offender) { return !roster_.bars(roster_.charge_of(offender, kNobody)); });
        quarantine_.release();
}

std::unique_ptr<Hand> Crew::State::remove(std::uint32_t child) {
        auto hand = intake_.remove(child);
        hand = hand ? std::move(hand) : disposal_.remove(child);
        hand = hand ? std::move(hand) : quarantine_.remove(child);
        return hand ? std::move(hand) : holders_.remove(child);
}

void Crew::State::open_door() noexcept {
        if (ending_doors_.size() >= kMaxEndingDoors) {
                return wake();  // until one has ended
        }
        const std::uint32_t child = roster_.next_child();
        if (succeeds([&] { door_child_ = door_.open(zygote_, child) ? child : 0; }) && door_child_ != 0) {
                return;
        }
        door_child_ = 0;
        wake();  // the timer tries again
}

void Crew::State::door_ended() {
        if (door_child_ != 0) {
                ending_doors_.push_back(door_child_);
                zygote_.kill(std::exchange(door_child_, 0));
                open_door();
        }
}

void Crew::State::wake() {
        if (!ticking_) {
                ticking_ = true;
                (void)sd_event_source_set_time_relative(timer_.get(), kTickUsec);
                (void)sd_event_source_set_enabled(timer_.get(), SD_EVENT_ON);
        }
}

void Crew::State::tick() {
        if (options_.control >= 0 && door_child_ == 0) {
                open_door();
        }
        for (Hand* const hand : working()) {
                // What it has said already counts, however late this loop is.
                if (hand->is_late(steady_usec()) && !hand->listen()) {
                        lost(hand->child());
                } else if (hand->is_late(steady_usec())) {
                        give_up(remove(hand->child()), Outcome::kLate);
                }
        }
        const std::int64_t now = steady_usec();
        close_orphans();
        expire(intake_, now - kMaxWaitUsec);
        expire(disposal_, now - kMaxWaitUsec);
        expire(quarantine_, now - kMaxWaitUsec);
        expire(holders_, now - kMaxWaitUsec);
        intake_.fill();
        disposal_.fill();
        quarantine_.fill();
        quarantine_.release();
        holders_.replace();
        holders_.retire();
        intake_.dispatch(now);
        disposal_.dispatch(now);
        quarantine_.dispatch(now);
        holders_.dispatch(now);
        holders_.tell_lost();
        if (!holders_.owes_a_word()) {
                roster_.end_left_behind();
        }
        if (orphans_.empty() && working().empty() && intake_.settled() && disposal_.settled() &&
            quarantine_.settled() && holders_.settled() && !roster_.has_unended() &&
            (options_.control < 0 || door_child_ != 0)) {
                ticking_ = false;
                (void)sd_event_source_set_enabled(timer_.get(), SD_EVENT_OFF);
        }
}

template <class Pool>
void Crew::State::expire(Pool& pool, std::int64_t since_usec) {
        while (const auto job = pool.pop_older(since_usec)) {
                call(job->done, {.outcome = Outcome::kBusy});
        }
}

std::vector<Hand*> Crew::State::working() const {
        std::vector<Hand*> all;
        intake_.add_working(all);
        disposal_.add_working(all);
        quarantine_.add_working(all);
        holders_.add_working(all);
        return all;
}

Pool* Crew::State::pool_of(Role role) {
        return role == Role::kIntake ? &intake_ : role == Role::kDisposal ? &disposal_ : nullptr;
}

void Crew::State::call(const std::function<void()>& callback) noexcept {
        if (callback) {
                (void)guarded(callback);
        }
}

void Crew::State::call(const Done& done, const Taken& result) noexcept {
        if (done) {
                (void)guarded([&] { done(result); });
        }
}

}  // namespace sockbroker::hands
