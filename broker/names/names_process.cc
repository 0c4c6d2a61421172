// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The process that is asked for names: whose turn it is, what comes back, and what is done when it hangs or ends.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "broker/names/names.h"
#include "broker/names/process.h"

namespace sockbroker {

namespace {

constexpr std::size_t kPatientFlights = kNamesThreads / 2;  // of policies, and of names that are slow
constexpr std::int64_t kBetweenReplacements = 1'000'000;
constexpr std::int64_t kHeldUpUsec = 20'000;  // then it is tried again

}  // namespace

void Names::send_some() {
        if (steady_usec() < held_up_until_usec_) {
                return;  // the clock comes back to it
        }
        held_up_until_usec_ = 0;
        while (!gone_ && !replacing_ && flights_.size() < kNamesThreads) {
                const auto patient = static_cast<std::size_t>(
                        std::ranges::count_if(flights_, [](const auto& one) { return one.second.patient; }));
                const bool from_prompt = !prompt_.empty();
                auto& queue = from_prompt ? prompt_ : patient_;
                if (queue.empty() || (!from_prompt && patient >= kPatientFlights)) {
                        break;
                }
                const Question question = queue.front();
                const auto entry = entries_.find(question);
                if (entry == entries_.end() || entry->second.queue != &queue) {
                        queue.pop_front();
                        continue;
                }
                if (entry->second.waits.empty()) {  // all of them had no more patience
                        queue.pop_front();
                        entry->second.queue = nullptr;
                        forget_if_idle(question);
                        continue;
                }
                if (!send_question(question, !from_prompt, again_.contains(question))) {
                        return;
                }
                queue.pop_front();
                entry->second.queue = nullptr;
                again_.erase(question);
        }
        replace_process();
}

bool Names::send_record(const std::string& record) {
        if (send(socket_.get(), record.data(), record.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
                return true;
        }
        if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
                process_is_gone();
        } else {
                // A queue that is full, or what the kernel has no memory for: it stays in the queue here, for as long
                // as somebody waits for it.
                held_up_until_usec_ = steady_usec() + kHeldUpUsec;
        }
        return false;
}

bool Names::send_question(const Question& question, bool patient, bool again) {
        const auto number = ++last_number_;
        if (!send_record(encode({.number = number, .question = question}))) {
                return false;
        }
        flights_[number] = {question, steady_usec(), patient, false, again};
        entries_[question].in_flight = number;
        return true;
}

// Where questions wait for threads that do not come back.
void Names::replace_process() {
        if (gone_ || replacing_ || (prompt_.empty() && patient_.empty()) || flights_.empty()) {
                return;
        }
        const bool all_late = std::ranges::all_of(
                flights_, [&](const auto& one) { return one.second.late || (prompt_.empty() && !one.second.patient); });
        const auto now = steady_usec();
        if (!all_late || now - replaced_usec_ < kBetweenReplacements ||
            !send_record(encode(ToNames{.replace = true}))) {
                return;
        }
        replaced_usec_ = now;
        replacing_ = true;
}

void Names::receive_some() {
        constexpr int kAtOnce = 64;
        for (int i = 0; i < kAtOnce && !gone_; i++) {
                std::array<char, kMaxNamesRecord> bytes{};
                const ssize_t size = recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
                if (size < 0) {
                        break;
                }
                const auto record = decode_from_names({bytes.data(), static_cast<std::size_t>(size)});
                if (!record) {
                        process_is_gone();  // the end, or nothing that a process of ours would say
                } else if (record->here) {
                        process_is_new();
                } else {
                        answered(record->number, record->answer);
                }
        }
        send_some();
        set_clock();
}

void Names::process_is_new() {
        replacing_ = false;
        if (!std::exchange(was_here_, true)) {
                return;
        }
        note_(4, "the process that looks up accounts (NSS) ended or hung, and another one has taken its place");
        const auto flights = std::exchange(flights_, {});
        for (const auto& [number, flight] : flights) {
                entries_[flight.question].in_flight = 0;
        }
        for (const auto& [number, flight] : flights) {
                if (flight.late) {
                        forget_if_idle(flight.question);
                        continue;
                }
                const Question& question = flight.question;
                Entry& entry = entries_[question];
                if (!flight.again) {
                        again_.insert(question);
                        queue(question, entry, flight.patient ? patient_ : prompt_, true);
                        continue;
                }
                // It has ended two processes: asked again later, with all others that have no answer.
                entry.late = true;
                silent_now(question, entry);
                tell_waits(question, entry, {});
                forget_if_idle(question);
        }
}

void Names::process_is_gone() {
        if (std::exchange(gone_, true)) {
                return;
        }
        note_(3,
              "the process that looks up accounts (NSS) is gone: what was known of names counts until the broker is "
              "restarted");
        source_.reset();
        prompt_.clear();
        patient_.clear();
        flights_.clear();
        std::vector<std::shared_ptr<Wait>> waits;
        for (auto& [question, entry] : entries_) {
                entry.queue = nullptr;
                entry.in_flight = 0;
                silent_now(question, entry);
                waits.insert(waits.end(), entry.waits.begin(), entry.waits.end());
        }
        for (const auto& wait : waits) {
                finish(wait);
        }
}

}  // namespace sockbroker
