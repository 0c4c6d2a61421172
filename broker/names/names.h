// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker knows of the names of User= and Group=, and its way to learn more without waiting: questions go to a
// process of their own (process.h), answers come by the event loop. A name is asked once however many wait for it.
// Judges nobody.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/base/turns.h"
#include "broker/names/question.h"
#include "broker/policy/accounts.h"

namespace sockbroker {

[[nodiscard]] Question question_of(const AccountName& name);

class Names {
public:
        // A question that has no answer after this time has none: the client of a request waits 5 s as a rule.
        static constexpr std::int64_t kPatienceUsec = 4'000'000;
        // What took longer than this waits behind what did not, so that a slow directory does not delay local accounts.
        static constexpr std::int64_t kSlowUsec = 100'000;
        // Names without an answer are asked again so often, a few at a time.
        static constexpr std::int64_t kRetryUsec = 5'000'000;

        struct Known {
                AccountAnswer last = AccountAnswer::none();
                std::int64_t answered_usec = 0;      // CLOCK_MONOTONIC
                std::int64_t silent_since_usec = 0;  // since the epoch; 0: the last question was answered
        };
        using Note = std::function<void(int priority, std::string message)>;

        // `socket`: of the process. Errors: the loop cannot watch it.
        [[nodiscard]] static Result<std::unique_ptr<Names>> start(sd_event* event, OwnedFd socket, Note note);
        ~Names();
        Names(const Names&) = delete;
        Names& operator=(const Names&) = delete;

        // The last answers, however old, but for ids that are given to others soon; and only those not older than that.
        [[nodiscard]] Accounts last_known() const;
        [[nodiscard]] Accounts answered_since(std::int64_t usec) const;
        // For whoever would come in by them: the last answers where the host does not answer, and those not older than
        // that where it does. Not those that mean an id of the range that DynamicUser= recycles.
        [[nodiscard]] Accounts for_admission(std::int64_t since_usec) const;
        [[nodiscard]] const Known* find(const AccountName& name) const;
        // Names that have no answer now, and since when the first of them has none.
        struct Silent {
                std::vector<AccountName> names;
                std::int64_t since_usec = 0;
                bool by_us = false;  // the process that asks is gone, and this host need not be the reason
        };
        [[nodiscard]] Silent silent() const;

        enum class Urgency : std::uint8_t {
                kRequest,  // of a peer who waits
                kPolicy,   // of a policy: many
        };
        // Asks each of them, or joins those who wait for it already, and calls `then` once: when each was answered,
        // when `enough` says so of an answer, or when the patience is over. At once where nobody could be waited for:
        // names that did not answer in time before are not waited for by requests, until they have.
        using Enough = std::function<bool(const Question&, const NssAnswer&)>;
        void ask(const std::vector<Question>& questions, Urgency urgency, std::int64_t patience_usec, Enough enough,
                 std::function<void()> then);
        // Forgets what no policy has any more. Sorted.
        void keep_only(const std::vector<AccountName>& names);

private:
        struct Wait;
        struct Entry {
                Known known;
                std::uint64_t in_flight = 0;            // its number; 0: it is not being asked, or in vain
                std::deque<Question>* queue = nullptr;  // in which it waits for its turn
                bool slow = false;
                bool late = false;  // the last question was not answered in time
                std::vector<std::shared_ptr<Wait>> waits;
        };
        struct Flight {
                Question question;
                std::int64_t sent_usec = 0;
                bool patient = false;
                bool late = false;
                bool again = false;  // the process that was asked before has ended over it, maybe
        };

        Names(OwnedFd socket, Note note) : socket_(std::move(socket)), note_(std::move(note)) {}
        [[nodiscard]] Result<void> watch(sd_event* event);
        // In the one that is for it now; where it stands in the other, it is passed over there.
        void queue(const Question& question, Entry& entry, std::deque<Question>& queue, bool first);
        void send_some();
        // False: it was not sent, and that passes by itself or the process is gone.
        [[nodiscard]] bool send_record(const std::string& record);
        [[nodiscard]] bool send_question(const Question& question, bool patient, bool again);
        void replace_process();
        void receive_some();
        void answered(std::uint64_t number, const NssAnswer& answer);
        void silent_now(const Question& question, Entry& entry);
        void forget_if_idle(const Question& question);
        void tell_waits(const Question& question, Entry& entry, const NssAnswer& answer);
        void finish(const std::shared_ptr<Wait>& wait);
        void process_is_new();
        void process_is_gone();
        void look_at_clock();
        void set_clock();
        void retry();
        [[nodiscard]] Accounts view(std::function<AccountAnswer(const Known&)> choose) const;

        OwnedFd socket_;
        Note note_;
        bool gone_ = false;
        bool was_here_ = false;
        std::map<Question, Entry> entries_;
        std::deque<Question> prompt_;
        std::deque<Question> patient_;
        std::map<std::uint64_t, Flight> flights_;
        std::set<Question> again_;  // were on their way when a process ended
        std::uint64_t last_number_ = 0;
        std::size_t silent_ = 0;
        std::int64_t retry_usec_ = 0;
        std::int64_t held_up_until_usec_ = 0;  // the process could not be sent anything just now; 0: it can
        std::int64_t replaced_usec_ = 0;
        bool replacing_ = false;
        bool one_is_back_ = false;
        Question retried_;
        std::set<std::pair<std::int64_t, std::shared_ptr<Wait>>> deadlines_;
        OwnedSource clock_;
        OwnedSource source_;
};

}  // namespace sockbroker
