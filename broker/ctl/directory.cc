// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/directory.h"

#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/base/net.h"
#include "broker/names/nss.h"
#include "broker/policy/decide.h"
#include "broker/policy/values.h"

namespace sockbroker::ctl {

namespace {

constexpr std::size_t kThreads = 32;  // names that hang keep so many from the others
constexpr const char* kGroups = "/etc/group";

struct CloseFile {
        void operator()(std::FILE* file) const { (void)std::fclose(file); }
};

std::vector<gid_t> groups_of_file(const std::string& user, gid_t own) {
        std::vector<gid_t> groups{own};
        const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(kGroups, "re"));
        while (const group* entry = file ? ::fgetgrent(file.get()) : nullptr) {
                for (char* const* member = entry->gr_mem; *member != nullptr; member++) {
                        if (user == *member && entry->gr_gid != own) {
                                groups.push_back(entry->gr_gid);
                        }
                }
        }
        return groups;
}

std::vector<gid_t> groups_by_nss(const std::string& user, gid_t own) {
        int count = 16;
        std::vector<gid_t> groups(static_cast<std::size_t>(count));
        if (::getgrouplist(user.c_str(), own, groups.data(), &count) < 0) {
                groups.resize(static_cast<std::size_t>(count));
                (void)::getgrouplist(user.c_str(), own, groups.data(), &count);
        }
        groups.resize(static_cast<std::size_t>(count));
        std::ranges::stable_partition(groups, [own](gid_t one) { return one == own; });
        return groups;
}

std::vector<std::uint32_t> numbers_of(std::string_view line) {
        std::vector<std::uint32_t> numbers;
        for (const auto word : split_words(line)) {
                numbers.push_back(static_cast<std::uint32_t>(parse_number(word, UINT32_MAX).value_or(UINT32_MAX)));
        }
        return numbers;
}

// Each whole line, as numbers.
std::vector<std::vector<std::uint32_t>> lines_of(std::string_view text) {
        std::vector<std::vector<std::uint32_t>> lines;
        for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
                lines.push_back(numbers_of(text.substr(0, end)));
                text.remove_prefix(end + 1);
        }
        return lines;
}

void ask_all(const std::vector<Question>& questions, int pipe) {
        std::atomic<std::size_t> next = 0;
        const auto work = [&] {
                for (std::size_t at = next++; at < questions.size(); at = next++) {
                        const auto answer = ask_nss(questions[at]);
                        write_record(pipe, fmt::format("{} {} {}\n", at, static_cast<int>(answer.outcome), answer.id));
                }
        };
        std::vector<std::jthread> threads;
        try {
                while (threads.size() < std::min(kThreads, questions.size())) {
                        threads.emplace_back(work);
                }
        } catch (const std::system_error&) {
                work();  // there may be no more of them
        }
}

AccountAnswer answer_of(Outcome outcome, std::uint32_t id) {
        return outcome == Outcome::kFound    ? AccountAnswer(std::optional(id))
               : outcome == Outcome::kAbsent ? AccountAnswer(std::nullopt)
                                             : AccountAnswer::none();
}

}  // namespace

std::optional<UserIds> ids_of_user(const std::string& name, Deadline deadline) {
        const auto text = told_until(deadline, [&name](int pipe) {
                const passwd* const user = ::getpwnam(name.c_str());
                if (user == nullptr) {
                        return;
                }
                const uid_t uid = user->pw_uid;
                const gid_t own = user->pw_gid;
                write_record(pipe, fmt::format("{} {}\n", uid, fmt::join(groups_of_file(name, own), " ")));
                write_record(pipe, fmt::format("{} {}\n", uid, fmt::join(groups_by_nss(name, own), " ")));
        });
        const auto lines = lines_of(text.value_or(""));
        if (lines.empty() || lines.back().size() < 2) {
                return std::nullopt;
        }
        const auto& last = lines.back();
        return UserIds{.uid = last.front(), .groups = std::vector<gid_t>(last.begin() + 1, last.end())};
}

Accounts accounts_of(const Policy& policy, Deadline deadline) {
        std::vector<Question> questions;
        const auto note = [&questions](QuestionKind kind) {
                return [&questions, kind](const std::string& name) {
                        questions.push_back({kind, name});
                        return AccountAnswer(std::nullopt);
                };
        };
        (void)unknown_accounts(policy, {.user = note(QuestionKind::kUser), .group = note(QuestionKind::kGroup)});
        auto answers = std::make_shared<std::map<Question, AccountAnswer>>();
        if (!questions.empty()) {
                const auto text = told_until(deadline, [&](int pipe) { ask_all(questions, pipe); });
                for (const auto& line : lines_of(text.value_or(""))) {
                        if (line.size() == 3 && line[0] < questions.size()) {
                                answers->insert_or_assign(questions[line[0]],
                                                          answer_of(static_cast<Outcome>(line[1]), line[2]));
                        }
                }
        }
        const auto find = [answers](QuestionKind kind) {
                return [answers, kind](const std::string& name) {
                        const auto answer = answers->find({kind, name});
                        return answer == answers->end() ? AccountAnswer::none() : answer->second;
                };
        };
        return {.user = find(QuestionKind::kUser), .group = find(QuestionKind::kGroup)};
}

}  // namespace sockbroker::ctl
