// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whose messages no hand takes: of who is barred, and on `notify` of who is slow.
#include <utility>

#include "broker/hands/crew_state.h"

namespace sockbroker::hands {

// What waited for a hand when its sender came to be barred. The queue of `notify` goes on by quarantine; a connection
// keeps its message, for the door.
void Crew::State::turn_away_barred(Pool& pool) noexcept {
        while (auto job = pool.pop_if([&](const Job& one) { return roster_.bars(one.charge); })) {
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
                        orphans_.give_back(*job);
                } else {
                        call(job->done, {.outcome = Outcome::kBusy});
                }
        }
}

// All wait behind the first message of `notify`, and it waits for a hand: for who has lately been slow, and for a
// stranger whose descriptors are only to be closed, no other message waits.
bool Crew::State::goes_aside(const Job& job, std::int64_t now) const {
        if (job.order.kind != OrderKind::kTake || job.order.source != Source::kNotify) {
                return false;
        }
        const bool waits_for_holder = !job.holder.empty() && job.since_usec < now - kMaxWaitUsec;
        const bool stranger = !job.order.probe && !roster_.ledger().knows(job.charge.uid);
        return waits_for_holder || slow_.has(job.charge, now) || (stranger && hands_.disposal.is_at_work());
}

// There is one at most: what is behind it has not been peeked at.
void Crew::State::put_aside_slow() noexcept {
        const std::int64_t now = steady_usec();
        std::unique_ptr<Job> job;
        (void)succeeds([&] { job = hands_.pop_if([&](const Job& one) { return goes_aside(one, now); }); });
        if (!job || put_aside(job)) {
                return;
        }
        if (!succeeds([&] { give(job); })) {
                call(job->done, {.outcome = Outcome::kBusy});
        }
}

bool Crew::State::put_aside(std::unique_ptr<Job>& job) noexcept {
        const Order order = job->order;
        job->only_closed = !order.probe;
        job->order.keep = true;
        job->order.probe = false;
        job->barred = true;
        bool pushed = false;
        (void)succeeds([&] { pushed = hands_.quarantine.push(job); });
        if (!pushed) {
                job->order = order;
                job->barred = false;
        }
        return pushed;
}

void Crew::State::forgive() {
        doors_.current().unbar([&](uid_t uid) {
                return uid == kNobody ? !roster_.bars({.uid = kNobody}) : !roster_.ledger().bars_uid(uid);
        });
        doors_.current().forgive(
                [&](std::uint32_t offender) { return !roster_.bars(roster_.charge_of(offender, kNobody)); });
        hands_.quarantine.release();
}

}  // namespace sockbroker::hands
