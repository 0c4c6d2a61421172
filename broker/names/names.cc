// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/names/names.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "broker/base/wall_clock.h"
#include "broker/names/process.h"

namespace sockbroker {

namespace {

// systemd gives a number of this range to one DynamicUser= service after the other (systemd.io/UIDS-GIDS).
bool is_recycled(const AccountAnswer& answer) {
        const auto id = answer.id();
        return id && *id >= 61184 && *id <= 65519;
}

AccountAnswer account_answer(const NssAnswer& answer) {
        return answer.outcome == Outcome::kFound    ? AccountAnswer(std::optional(answer.id))
               : answer.outcome == Outcome::kAbsent ? AccountAnswer(std::nullopt)
                                                    : AccountAnswer::none();
}

bool is_of_account(const Question& question) {
        return question.kind == QuestionKind::kUser || question.kind == QuestionKind::kGroup;
}

}  // namespace

Question question_of(const AccountName& name) {
        return {name.kind == AccountKind::kUser ? QuestionKind::kUser : QuestionKind::kGroup, name.name};
}

struct Names::Wait {
        std::vector<Question> questions;  // that it was added to
        std::size_t left = 0;
        std::int64_t deadline_usec = 0;
        Enough enough;
        std::function<void()> then;  // empty: it is over
};

Names::~Names() = default;

Result<std::unique_ptr<Names>> Names::start(sd_event* event, OwnedFd socket, Note note) {
        std::unique_ptr<Names> names(new Names(std::move(socket), std::move(note)));
        if (auto watched = names->watch(event); !watched) {
                return std::unexpected(watched.error());
        }
        return names;
}

Result<void> Names::watch(sd_event* event) {
        sd_event_source* source = nullptr;
        int r = sd_event_add_io(
                event, &source, socket_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        return guarded([self] { static_cast<Names*>(self)->receive_some(); });
                },
                this);
        source_.reset(source);
        if (r >= 0) {
                source = nullptr;
                r = sd_event_add_time(
                        event, &source, CLOCK_MONOTONIC, UINT64_MAX, 1000,
                        [](sd_event_source*, std::uint64_t, void* self) {
                                return guarded([self] { static_cast<Names*>(self)->look_at_clock(); });
                        },
                        this);
                clock_.reset(source);
        }
        return r < 0 ? Result<void>(fail(r, "cannot watch the process that looks up accounts")) : Result<void>();
}

// What is known.

Accounts Names::view(std::function<AccountAnswer(const Known&)> choose) const {
        const auto look = [this, choose = std::move(choose)](QuestionKind kind, const std::string& name) {
                const auto entry = entries_.find({kind, name});
                return entry == entries_.end() ? AccountAnswer::none() : choose(entry->second.known);
        };
        return {.user = [look](const std::string& name) { return look(QuestionKind::kUser, name); },
                .group = [look](const std::string& name) { return look(QuestionKind::kGroup, name); }};
}

Accounts Names::last_known() const {
        return view([](const Known& known) { return known.last; });
}

Accounts Names::answered_since(std::int64_t usec) const {
        return view([usec](const Known& known) {
                return known.answered_usec >= usec && known.silent_since_usec == 0 ? known.last : AccountAnswer::none();
        });
}

Accounts Names::for_admission(std::int64_t since_usec) const {
        return view([since_usec](const Known& known) {
                const bool counts =
                        known.silent_since_usec == 0 ? known.answered_usec >= since_usec : !is_recycled(known.last);
                return counts ? known.last : AccountAnswer::none();
        });
}

const Names::Known* Names::find(const AccountName& name) const {
        const auto entry = entries_.find(question_of(name));
        return entry == entries_.end() ? nullptr : &entry->second.known;
}

Names::Silent Names::silent() const {
        Silent silent{.names = {}, .by_us = gone_};
        if (silent_ == 0) {
                return silent;
        }
        for (const auto& [question, entry] : entries_) {
                const auto since = entry.known.silent_since_usec;
                if (since != 0) {
                        silent.names.push_back(
                                {question.kind == QuestionKind::kUser ? AccountKind::kUser : AccountKind::kGroup,
                                 question.text});
                        silent.since_usec = silent.since_usec == 0 ? since : std::min(silent.since_usec, since);
                }
        }
        return silent;
}

void Names::keep_only(const std::vector<AccountName>& names) {
        std::erase_if(entries_, [&](const auto& one) {
                const auto& [question, entry] = one;
                const AccountName name{question.kind == QuestionKind::kUser ? AccountKind::kUser : AccountKind::kGroup,
                                       question.text};
                const bool wanted = is_of_account(question) && std::ranges::binary_search(names, name);
                if (wanted || entry.queue != nullptr || entry.in_flight != 0 || !entry.waits.empty()) {
                        return false;
                }
                silent_ -= entry.known.silent_since_usec != 0 ? 1 : 0;
                return true;
        });
}

// Asking.

void Names::ask(const std::vector<Question>& questions, Urgency urgency, std::int64_t patience_usec, Enough enough,
                std::function<void()> then) {
        const auto now = steady_usec();
        const auto wait = std::make_shared<Wait>();
        for (const auto& question : questions) {
                Entry& entry = entries_[question];
                if (question.text.size() > kMaxQuestionText) {  // no host has such an account
                        entry.known.last = AccountAnswer(std::nullopt);
                        entry.known.answered_usec = now;
                        continue;
                }
                const bool hopeless = urgency == Urgency::kRequest && entry.late;
                if (gone_ || hopeless) {
                        silent_now(question, entry);
                        continue;
                }
                entry.waits.push_back(wait);
                wait->questions.push_back(question);
                wait->left++;
                const bool request = urgency == Urgency::kRequest;
                auto& queue_of_it = request && !entry.slow ? prompt_ : patient_;
                if (entry.in_flight == 0 && (entry.queue == nullptr || (request && entry.queue != &queue_of_it))) {
                        queue(question, entry, queue_of_it, request);
                }
        }
        if (wait->left == 0) {
                return then();
        }
        wait->deadline_usec = now + patience_usec;
        wait->enough = std::move(enough);
        wait->then = std::move(then);
        deadlines_.emplace(wait->deadline_usec, wait);
        send_some();
        set_clock();
}

void Names::queue(const Question& question, Entry& entry, std::deque<Question>& queue, bool first) {
        if (first && &queue == &patient_) {
                queue.push_front(question);
        } else {
                queue.push_back(question);
        }
        entry.queue = &queue;
}

// Answers.

void Names::answered(std::uint64_t number, const NssAnswer& answer) {
        const auto flight = flights_.find(number);
        if (flight == flights_.end()) {
                return;  // of a process that has been replaced since
        }
        const Question question = std::move(flight->second.question);
        const auto took = steady_usec() - flight->second.sent_usec;
        flights_.erase(flight);
        Entry& entry = entries_[question];
        entry.in_flight = entry.in_flight == number ? 0 : entry.in_flight;
        entry.late = false;
        entry.slow = took > kSlowUsec;
        if (answer.outcome == Outcome::kNoAnswer) {
                silent_now(question, entry);
        } else {
                entry.known.last = account_answer(answer);
                entry.known.answered_usec = steady_usec();
                if (std::exchange(entry.known.silent_since_usec, 0) != 0) {
                        silent_--;
                        one_is_back_ = silent_ > 0;
                        retry_usec_ = one_is_back_ ? steady_usec() : 0;
                }
        }
        tell_waits(question, entry, answer);
        forget_if_idle(question);
}

// What an id is called is of use to those who wait for it, and to nobody else.
void Names::forget_if_idle(const Question& question) {
        const auto entry = entries_.find(question);
        if (!is_of_account(question) && entry != entries_.end() && entry->second.waits.empty() &&
            entry->second.queue == nullptr && entry->second.in_flight == 0) {
                entries_.erase(entry);
        }
}

void Names::silent_now(const Question& question, Entry& entry) {
        if (!is_of_account(question)) {
                return;
        }
        if (entry.known.silent_since_usec == 0) {
                entry.known.silent_since_usec = wall_usec();
                silent_++;
        }
        if (retry_usec_ == 0) {
                retry_usec_ = steady_usec() + kRetryUsec;
        }
}

void Names::tell_waits(const Question& question, Entry& entry, const NssAnswer& answer) {
        for (const auto& wait : std::exchange(entry.waits, {})) {
                wait->left--;
                const bool enough = wait->enough && wait->enough(question, answer);
                if (enough || wait->left == 0) {
                        finish(wait);
                }
        }
}

// Whoever waited is called when this is done with, since it may ask again.
void Names::finish(const std::shared_ptr<Wait>& wait) {
        const auto then = std::exchange(wait->then, nullptr);
        if (!then) {
                return;
        }
        deadlines_.erase({wait->deadline_usec, wait});
        for (std::size_t i = 0; wait->left > 0 && i < wait->questions.size(); i++) {
                const Question& question = wait->questions[i];
                if (const auto entry = entries_.find(question); entry != entries_.end()) {
                        std::erase(entry->second.waits, wait);
                }
        }
        then();
}

// Time.

void Names::look_at_clock() {
        const auto now = steady_usec();
        std::vector<Question> late;
        for (auto& [number, flight] : flights_) {
                if (!flight.late && now - flight.sent_usec >= kPatienceUsec) {
                        flight.late = true;
                        late.push_back(flight.question);
                }
        }
        for (const auto& question : late) {
                Entry& entry = entries_[question];
                entry.in_flight = 0;  // should it come after all, it counts
                entry.late = entry.slow = true;
                silent_now(question, entry);
                tell_waits(question, entry, {});
        }
        while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
                const auto wait = deadlines_.begin()->second;
                for (const auto& question : wait->questions) {
                        Entry& entry = entries_[question];
                        if (std::ranges::find(entry.waits, wait) != entry.waits.end()) {
                                silent_now(question, entry);
                        }
                }
                finish(wait);
        }
        if (retry_usec_ != 0 && now >= retry_usec_) {
                retry();
        }
        send_some();
        set_clock();
}

// A few at a time, each in its turn; all of them once one has answered.
void Names::retry() {
        constexpr std::size_t kAtOnce = 2;
        const bool all = std::exchange(one_is_back_, false);
        retry_usec_ = silent_ == 0 ? 0 : steady_usec() + kRetryUsec;
        std::vector<Question> questions;
        const auto add = [&](auto from, auto to) {
                for (; from != to && (all || questions.size() < kAtOnce); from++) {
                        if (from->second.known.silent_since_usec != 0) {
                                questions.push_back(from->first);
                        }
                }
        };
        const auto after = entries_.upper_bound(retried_);
        add(after, entries_.end());
        add(entries_.begin(), after);
        if (!questions.empty()) {
                retried_ = questions.back();
                ask(questions, Urgency::kPolicy, kPatienceUsec, {}, [] {});
        }
}

void Names::set_clock() {
        std::int64_t next = INT64_MAX;
        if (!deadlines_.empty()) {
                next = deadlines_.begin()->first;
        }
        for (const auto& [number, flight] : flights_) {
                if (!flight.late) {
                        next = std::min(next, flight.sent_usec + kPatienceUsec);
                }
        }
        if (retry_usec_ != 0 && !gone_) {
                next = std::min(next, retry_usec_);
        }
        if (held_up_until_usec_ != 0 && !gone_) {
                next = std::min(next, held_up_until_usec_);
        }
        (void)sd_event_source_set_time(clock_.get(), next == INT64_MAX ? UINT64_MAX : static_cast<std::uint64_t>(next));
        (void)sd_event_source_set_enabled(clock_.get(), next == INT64_MAX ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

}  // namespace sockbroker
