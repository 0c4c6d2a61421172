// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/hand.h"

#include <algorithm>
#include <array>
#include <utility>

#include "broker/hands/process_state.h"

namespace sockbroker::hands {

Result<std::unique_ptr<Hand>> Hand::fork(sd_event* event, const Zygote& zygote, std::uint32_t child, Role role,
                                         std::span<const int> given, bool for_the_door, Hooks hooks) {
        auto ends = Link::make();
        if (!ends) {
                return std::unexpected(ends.error());
        }
        std::unique_ptr<Hand> hand(new Hand(child, role, std::move(ends->core), std::move(hooks)));
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, hand->link_.answers(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        auto& one = *static_cast<Hand*>(self);
                        if (!one.listen()) {
                                one.io_.reset();
                                (void)guarded([&] { one.hooks_.gone(one); });
                        }
                        return 0;
                },
                hand.get());
        if (r < 0) {
                return fail(r, "cannot watch a hand");
        }
        hand->io_.reset(source);
        hand->for_the_door = for_the_door;
        std::vector<int> fds{ends->hand_answers.get(), ends->hand_orders.get()};
        fds.insert(fds.end(), given.begin(), given.end());
        if (const int errnum = zygote.fork(child, role, fds, for_the_door); errnum != 0) {
                return fail(errnum, "cannot have a hand made");
        }
        return hand;
}

int Hand::begin(std::unique_ptr<Job>& job, std::int64_t now_usec) {
        std::array<int, kMaxMessageFds + 1> fds;
        std::size_t count = 0;
        if (job->connection >= 0) {
                fds.at(count++) = job->connection;
        }
        for (const OwnedFd& fd : job->given) {
                fds.at(count++) = fd.get();
        }
        Order order = job->order;
        order.staging = staging;
        const int errnum = link_.send(order, job->cookies, job->text, std::span(fds).first(count));
        if (errnum == 0) {
                job->given.clear();
                set_since(now_usec);
                job_ = std::move(job);
        }
        return errnum;
}

void Hand::set_since(std::int64_t now_usec) {
        since_usec_ = now_usec;
        starved_cpu_usec_.reset();
}

int Hand::order_again(const Order& order, std::int64_t now_usec) {
        set_since(now_usec);
        return link_.send(order);
}

void Hand::begin_batch(Charge whose, std::int64_t now_usec) {
        batch_ = std::move(whose);
        set_since(now_usec);
}

std::optional<Charge> Hand::end_batch(std::int64_t now_usec) {
        set_since(now_usec);
        return std::exchange(batch_, std::nullopt);
}

bool Hand::is_late(std::int64_t now_usec) {
        const std::int64_t took = now_usec - since_usec_;
        if ((!job_ && !batch_) || took <= Crew::kPatienceUsec) {
                return false;
        }
        const auto state = state_of(pid_);
        if (!state || !state->runnable || took > Crew::kPatienceIfStarvedUsec) {
                return true;
        }
        if (!starved_cpu_usec_) {
                starved_cpu_usec_ = state->cpu_usec;
        }
        return state->cpu_usec - *starved_cpu_usec_ > Crew::kPatienceUsec;
}

// First whether it sleeps, then what it has said: when it sleeps for want of orders it has said that it is done.
std::int64_t Hand::slept_usec(std::int64_t now_usec, std::int64_t most_usec) {
        constexpr std::int64_t kSomeUsec = 2'000;
        if (!job_ || now_usec - since_usec_ < kSomeUsec) {
                return 0;
        }
        const auto state = state_of(pid_);
        const std::uint32_t job = job_->order.job;
        const std::int64_t slept = std::min(now_usec - since_usec_, most_usec);
        const bool sleeps = state && !state->runnable && listen() && job_ && job_->order.job == job;
        return sleeps ? slept : 0;
}

// An answer that there is no memory for is lost, and with it what the hand is at.
bool Hand::listen() {
        bool there = false;
        (void)succeeds([&] {
                there = link_ && link_.receive([this](ParsedAnswer& answer) { return hooks_.answered(*this, answer); });
        });
        return there;
}

}  // namespace sockbroker::hands
