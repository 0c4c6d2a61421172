// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/all_hands.h"

#include <utility>

namespace sockbroker::hands {

void AllHands::forked(std::uint32_t child, pid_t pid, std::int64_t now_usec) {
        if (!intake.forked(child, pid, now_usec) && !disposal.forked(child, pid, now_usec) &&
            !quarantine.forked(child, pid, now_usec)) {
                (void)holders.forked(child, pid, now_usec);
        }
}

std::unique_ptr<Hand> AllHands::remove(std::uint32_t child) {
        auto hand = intake.remove(child);
        hand = hand ? std::move(hand) : disposal.remove(child);
        hand = hand ? std::move(hand) : quarantine.remove(child);
        return hand ? std::move(hand) : holders.remove(child);
}

std::vector<Hand*> AllHands::working() const {
        std::vector<Hand*> all;
        intake.add_working(all);
        disposal.add_working(all);
        quarantine.add_working(all);
        holders.add_working(all);
        return all;
}

void AllHands::cancel(std::uint64_t connection) {
        intake.cancel(connection);
        disposal.cancel(connection);
        holders.cancel(connection);
}

bool AllHands::disown(std::uint64_t connection) {
        return intake.disown(connection) || disposal.disown(connection) || holders.disown(connection);
}

std::unique_ptr<Job> AllHands::pop_older(std::int64_t usec) {
        auto job = intake.pop_older(usec);
        job = job ? std::move(job) : disposal.pop_older(usec);
        job = job ? std::move(job) : quarantine.pop_older(usec);
        return job ? std::move(job) : holders.pop_older(usec);
}

std::unique_ptr<Job> AllHands::pop_if(const std::function<bool(const Job&)>& fits) {
        auto job = intake.pop_if(fits);
        job = job ? std::move(job) : disposal.pop_if(fits);
        return job ? std::move(job) : holders.pop_if(fits);
}

void AllHands::fill() {
        intake.fill();
        disposal.fill();
        quarantine.fill();
        quarantine.release();
        holders.replace();
        holders.retire();
}

void AllHands::dispatch(std::int64_t now_usec) {
        intake.dispatch(now_usec);
        disposal.dispatch(now_usec);
        quarantine.dispatch(now_usec);
        holders.dispatch(now_usec);
}

bool AllHands::settled() const {
        return intake.settled() && disposal.settled() && quarantine.settled() && holders.settled();
}

}  // namespace sockbroker::hands
