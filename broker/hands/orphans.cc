// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/orphans.h"

#include <utility>

namespace sockbroker::hands {

void Orphans::opened() {
        if (waiting_.capacity() < waiting_.size() + open_ + 1) {
                waiting_.reserve(2 * (waiting_.size() + open_ + 1));
        }
        open_++;
}

void Orphans::add(OwnedFd connection, Charge charge) noexcept {
        waiting_.push_back({std::move(connection), std::move(charge)});
}

std::unique_ptr<Job> Orphans::next() {
        auto job = std::make_unique<Job>();
        job->given.reserve(1);
        job->order.kind = OrderKind::kPut;
        job->charge = std::move(waiting_.back().charge);
        job->given.push_back(std::move(waiting_.back().connection));
        waiting_.pop_back();
        return job;
}

void Orphans::give_back(Job& job) noexcept {
        if (!job.given.empty()) {
                add(std::move(job.given.front()), std::move(job.charge));
        }
}

}  // namespace sockbroker::hands
