// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/admissions.h"

#include <sys/resource.h>

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "broker/protocol/request.h"

namespace sockbroker {

namespace {

constexpr std::size_t kMaxOfSender = 1024;
constexpr std::size_t kMaxOfAll = 8192;
constexpr std::size_t kOneMessage = kMaxMessageFds + 1;

template <class Key>
void take_back(std::map<Key, std::size_t>& counts, const Key& key, std::size_t cost) {
        const auto counted = counts.find(key);
        if (counted == counts.end()) {
                return;
        }
        counted->second -= cost;
        if (counted->second == 0) {
                counts.erase(counted);
        }
}

template <class Key>
std::size_t count_of(const std::map<Key, std::size_t>& counts, const Key& key) {
        const auto counted = counts.find(key);
        return counted == counts.end() ? 0 : counted->second;
}

}  // namespace

// Counts one request that waits, for as long as it does.
struct Admissions::Ticket {
        Ticket(Admissions& of, const Peer& peer, std::size_t what)
                : all(of), uid(peer.uid), unit(peer.unit), cost(what) {
                all.all_ += cost;
                all.of_uid_[uid] += cost;
                if (!unit.empty()) {
                        all.of_unit_[unit] += cost;
                }
        }
        ~Ticket() {
                all.all_ -= cost;
                take_back(all.of_uid_, uid, cost);
                take_back(all.of_unit_, unit, cost);
        }
        Ticket(const Ticket&) = delete;
        Ticket& operator=(const Ticket&) = delete;

        Admissions& all;
        const uid_t uid;
        const std::string unit;
        const std::size_t cost;
};

struct Admissions::Waiting {
        std::string service;
        Peer peer;
        std::int64_t arrived_usec = 0;
        std::set<Question> young;     // had an answer that was not asked for this request
        std::vector<Question> again;  // of these: what the sender's own ids are called
        std::shared_ptr<Ticket> ticket;
        Then then;
};

Admissions::Admissions(Names& names, const PolicyInForce& policy) : names_(names), policy_(policy) {
        // Those of messages lie among the descriptors of this process.
        rlimit descriptors{};
        const std::size_t quarter = getrlimit(RLIMIT_NOFILE, &descriptors) == 0 ? descriptors.rlim_cur / 4 : kMaxOfAll;
        max_of_all_ = std::clamp(quarter, kOneMessage, kMaxOfAll);
        max_of_sender_ = std::clamp(max_of_all_ / 8, kOneMessage, kMaxOfSender);
}

std::expected<std::shared_ptr<Admissions::Ticket>, Refusal> Admissions::admit_to_wait(const Peer& peer,
                                                                                      std::size_t cost) {
        if (count_of(of_uid_, peer.uid) + cost > max_of_sender_ ||
            count_of(of_unit_, peer.unit) + cost > max_of_sender_) {
                return std::unexpected(Refusal{
                        ResultCode::kRateLimited,
                        fmt::format("too many requests of uid {}{} wait for the host to answer for names of User= "
                                    "and Group=, ask again later",
                                    peer.uid, peer.unit.empty() ? "" : " and " + peer.unit),
                        {}});
        }
        if (all_ + cost > max_of_all_) {
                return std::unexpected(Refusal{ResultCode::kBusy,
                                               "too many requests wait for the host to answer for names of User= and "
                                               "Group=, ask again later",
                                               {}});
        }
        return std::make_shared<Ticket>(*this, peer, cost);
}

void Admissions::judge(const std::string& service, const Peer& peer, std::size_t descriptors, const Then& then) {
        const auto waiting = std::make_shared<Waiting>();
        waiting->arrived_usec = steady_usec();
        const auto fresh_since = waiting->arrived_usec - kFreshUsec;
        const auto policy = policy_.shared();  // the verdict is of it
        const auto verdict = admit(*policy, peer, service, names_.answered_since(fresh_since));
        if (verdict && !service.empty()) {
                return then(verdict);
        }
        std::vector<Question> questions;
        std::set<QuestionKind> own;
        for (const auto& name : names_that_matter(*policy, peer, service)) {
                const auto* known = names_.find(name);
                if (known == nullptr || known->silent_since_usec != 0 || known->answered_usec < fresh_since) {
                        questions.push_back(question_of(name));
                } else {
                        waiting->young.insert(question_of(name));
                        own.insert(name.kind == AccountKind::kUser ? QuestionKind::kNameOfUser
                                                                   : QuestionKind::kNameOfGroup);
                }
        }
        // Of somebody who came into being since: its own name is asked anew, however young the answer. One question,
        // where all names of the policy would be many.
        if (!verdict && verdict.error().code == ResultCode::kNotPermitted) {
                for (const auto kind : own) {
                        questions.push_back(
                                {kind, std::to_string(kind == QuestionKind::kNameOfUser ? peer.uid : peer.gid)});
                }
        }
        if (questions.empty()) {
                return then(verdict);
        }
        auto ticket = admit_to_wait(peer, 1 + descriptors);
        if (!ticket) {
                return then(std::unexpected(ticket.error()));
        }
        waiting->service = service;
        waiting->peer = peer;
        waiting->ticket = std::move(*ticket);
        waiting->then = then;
        ask(waiting, questions);
}

void Admissions::ask(const std::shared_ptr<Waiting>& waiting, const std::vector<Question>& questions) {
        const auto enough = [this, waiting](const Question& question, const NssAnswer& answer) {
                if (answer.outcome != Outcome::kFound) {
                        return false;
                }
                const bool of_user = question.kind == QuestionKind::kUser || question.kind == QuestionKind::kNameOfUser;
                if (question.kind == QuestionKind::kNameOfUser || question.kind == QuestionKind::kNameOfGroup) {
                        Question own{of_user ? QuestionKind::kUser : QuestionKind::kGroup, answer.name};
                        if (waiting->young.erase(own) != 0) {
                                waiting->again.push_back(std::move(own));
                        }
                        return false;
                }
                // Whoever is admitted by what is known already waits for no other name.
                return !waiting->service.empty() && answer.id == (of_user ? waiting->peer.uid : waiting->peer.gid) &&
                       admit(*policy_, waiting->peer, waiting->service,
                             names_.answered_since(waiting->arrived_usec - kFreshUsec))
                               .has_value();
        };
        names_.ask(questions, Names::Urgency::kRequest, Names::kPatienceUsec, enough, [this, waiting] {
                if (const auto again = std::exchange(waiting->again, {}); !again.empty()) {
                        return ask(waiting, again);
                }
                const auto policy = policy_.shared();
                const auto verdict = admit(*policy, waiting->peer, waiting->service,
                                           names_.for_admission(waiting->arrived_usec - kFreshUsec));
                waiting->ticket.reset();
                waiting->then(verdict);
        });
}

}  // namespace sockbroker
