// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One hand, as the core sees it: its link, and the one job that it has.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "broker/base/event.h"
#include "broker/hands/crew.h"
#include "broker/hands/link.h"

namespace sockbroker::hands {

struct Job {
        Order order;
        std::vector<std::uint64_t> cookies;
        std::string text;
        int connection = -1;
        std::uint64_t connection_id = 0;
        std::vector<OwnedFd> given;  // closed here as soon as they are sent
        Charge charge;
        std::string holder;
        std::int64_t since_usec = 0;
        Crew::Done done;
        std::function<void()> taken;
        bool is_taken = false;
        bool barred = false;       // it goes into quarantine
        bool only_closed = false;  // nobody wants more than that what came is gone: then quarantine does it as well
};

class Hand {
public:
        struct Hooks {
                std::function<bool(Hand&, ParsedAnswer&)> answered;  // false: nonsense
                std::function<void(Hand&)> gone;
        };

        // Its fork is on its way when this returns; until forked() it gets nothing to do.
        [[nodiscard]] static Result<std::unique_ptr<Hand>> fork(sd_event* event, const Zygote& zygote,
                                                                std::uint32_t child, Role role,
                                                                std::span<const int> given, bool for_the_door,
                                                                Hooks hooks);

        [[nodiscard]] std::uint32_t child() const { return child_; }
        [[nodiscard]] Role role() const { return role_; }
        [[nodiscard]] bool idle() const { return pid_ != 0 && !job_ && !batch_ && !in_callback_; }
        void forked(pid_t pid) { pid_ = pid; }

        // errno; 0: it has it, and what the job gave is closed. Otherwise the job stays where it is.
        [[nodiscard]] int begin(std::unique_ptr<Job>& job, std::int64_t now_usec);
        [[nodiscard]] int order_again(const Order& order, std::int64_t now_usec);  // the job goes on
        [[nodiscard]] Job* job() const { return job_.get(); }
        [[nodiscard]] std::unique_ptr<Job> end_job() { return std::move(job_); }

        // Whose connections it is closing, which it has from the door.
        [[nodiscard]] const Charge* batch() const { return batch_ ? &*batch_ : nullptr; }
        void begin_batch(Charge whose, std::int64_t now_usec);
        std::optional<Charge> end_batch(std::int64_t now_usec);

        // Since when it has been at what it does now.
        [[nodiscard]] std::int64_t since_usec() const { return since_usec_; }
        // It has had its time and sleeps, or has used up a processor's. One that waits for a processor is not late for
        // that.
        [[nodiscard]] bool is_late(std::int64_t now_usec);

        // What it has to do is under way, and it sleeps over it: for so long, at most this. It waits for no processor.
        [[nodiscard]] std::int64_t slept_usec(std::int64_t now_usec, std::int64_t most_usec);

        // Reads what it has said. False: it is gone, or speaks nonsense.
        [[nodiscard]] bool listen();
        // No order comes any more: it ends. What it still says is heard.
        void dismiss() { link_.close_orders(); }

        // Its slots of the staging map are the callback's: it gets no other job meanwhile.
        template <class Act>
        void call(const Act& act) {
                struct Within {
                        explicit Within(bool& flag) : within(flag) { within = true; }
                        ~Within() { within = false; }
                        bool& within;
                } const within(in_callback_);
                act();
        }

        std::uint32_t staging = 0;
        bool for_the_door = false;  // it closes what the door brings, too

private:
        void set_since(std::int64_t now_usec);
        Hand(std::uint32_t child, Role role, Link link, Hooks hooks)
                : child_(child), role_(role), hooks_(std::move(hooks)), link_(std::move(link)) {}

        std::uint32_t child_;
        Role role_;
        Hooks hooks_;
        Link link_;
        OwnedSource io_;
        std::unique_ptr<Job> job_;
        std::optional<Charge> batch_;
        std::int64_t since_usec_ = 0;
        pid_t pid_ = 0;
        std::optional<std::int64_t> starved_cpu_usec_;  // what it had used when it was found to wait for a processor
        bool in_callback_ = false;
};

}  // namespace sockbroker::hands
