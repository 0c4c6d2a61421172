// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "broker/audit/format.h"
#include "broker/base/owned_fd.h"
#include "broker/base/printable.h"

namespace sockbroker {
namespace {

using testing::Test;

Entry full_entry() {
        return {.action = Action::kHandover,
                .priority = 5,
                .message = "replaced",
                .service = "resolver",
                .result = "ok",
                .rule = "/etc/sockbroker/conf.d/50-dns.conf:2",
                .cookie = 0x2a,
                .protocol = "udp",
                .bound = "127.0.0.2:53",
                .unit = "resolver.service",
                .has_peer = true,
                .uid = 0,
                .pid = 77,
                .old_unit = "old.service",
                .old_cookie = 0xfedcba9876543210,
                .old_uid = 61001,
                .old_pid = 76};
}

TEST(AuditFields, AreExactlyThese) {
        const std::vector<std::string> expected = {
                "MESSAGE=replaced",
                "MESSAGE_ID=f87a26fdb26c45248ee528d77db7f1df",
                "PRIORITY=5",
                "SOCKBROKER_SERVICE=resolver",
                "SOCKBROKER_ACTION=handover",
                "SOCKBROKER_RESULT=ok",
                "SOCKBROKER_RULE=/etc/sockbroker/conf.d/50-dns.conf:2",
                "SOCKBROKER_COOKIE=000000000000002a",
                "SOCKBROKER_PROTOCOL=udp",
                "SOCKBROKER_BOUND=127.0.0.2:53",
                "SOCKBROKER_UNIT=resolver.service",
                "SOCKBROKER_UID=0",
                "OBJECT_PID=77",
                "SOCKBROKER_OLD_UNIT=old.service",
                "SOCKBROKER_OLD_UID=61001",
                "SOCKBROKER_OLD_COOKIE=fedcba9876543210",
                "SOCKBROKER_OLD_PID=76",
        };
        EXPECT_EQ(journal_fields(full_entry()), expected);
}

TEST(AuditFields, OnlyAHandOverNamesAnOldOwner) {
        Entry entry = full_entry();
        entry.action = Action::kRegister;
        for (const std::string& field : journal_fields(entry)) {
                EXPECT_EQ(field.find("_OLD_"), std::string::npos) << field;
        }
}

TEST(AuditFields, WhatIsNotKnownIsLeftOut) {
        const std::vector<std::string> expected = {"MESSAGE=policy taken",
                                                   "MESSAGE_ID=4817f46e618e414db6f728a05ceb01dd", "PRIORITY=6",
                                                   "SOCKBROKER_ACTION=reload"};
        EXPECT_EQ(journal_fields({.action = Action::kReload, .message = "policy taken"}), expected);
}

TEST(AuditStderr, IsOneLineAnEvent) {
        EXPECT_EQ(stderr_line(full_entry()),
                  "handover: replaced (service=resolver, rule=/etc/sockbroker/conf.d/50-dns.conf:2, uid=0)\n");
        EXPECT_EQ(stderr_line({.action = Action::kStop, .message = "ends"}), "stop: ends\n");
}

TEST(AuditStderr, ValuesCannotMakeLinesOfTheirOwn) {
        Entry entry{.action = Action::kRefuse, .message = "a\nregister: b\x1b[2J"};
        entry.service = "x\r\ny";
        EXPECT_EQ(stderr_line(entry), "refuse: a\\x0aregister: b\\x1b[2J (service=x\\x0d\\x0ay)\n");
}

TEST(Printable, KeepsTextAndEscapesControls) {
        EXPECT_EQ(printable("Bär → 東 𝄞"), "Bär → 東 𝄞");
        EXPECT_EQ(printable(std::string_view("\0\t\x7f", 3)), "\\x00\\x09\\x7f");
        EXPECT_EQ(printable("\xc2\x9b"
                            "2J"),
                  "\\xc2\\x9b2J");                                // CSI as one C1 character
        EXPECT_EQ(printable("\x9b\xff"), "\\x9b\\xff");           // no UTF-8 at all
        EXPECT_EQ(printable("\xc0\x8a"), "\\xc0\\x8a");           // over-long new line
        EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // surrogate
        EXPECT_EQ(printable("\xe2\x86"), "\\xe2\\x86");           // cut off
}

TEST(Printable, EscapesWhatIsNotSeenButChangesHowTextIsShown) {
        EXPECT_EQ(printable("\u202egnp.conf"), "\\xe2\\x80\\xaegnp.conf");
        for (const char* unseen :
             {"\u00ad", "\u061c",     "\u180e",     "\u200b",     "\u200d",    "\u200e", "\u200f", "\u2028",
              "\u2029", "\u202a",     "\u202b",     "\u202c",     "\u202d",    "\u202e", "\u2060", "\u2064",
              "\u2066", "\u2067",     "\u2068",     "\u2069",     "\u206a",    "\u206f", "\ufeff", "\ufff9",
              "\ufffb", "\U0001d173", "\U000e0001", "\U000e0041", "\U000e007f"}) {
                const auto shown = printable(std::string("a") + unseen + "b");
                EXPECT_TRUE(std::ranges::all_of(shown, [](char c) { return 0x20 <= c && c < 0x7f; })) << shown;
        }
        for (const char* seen : {"\u00ac", "\u00ae", "\u200a", "\u2010", "\u2027", "\u202f", "\u2070", "\ufffd"}) {
                EXPECT_EQ(printable(seen), seen);
        }
}

TEST(AuditFields, HoldNothingThatATerminalWouldObey) {
        Entry entry{.action = Action::kDiagnostic, .message = "a\x1b[2J\u202e\n", .rule = "/x/\u202egnp.conf:1"};
        const auto fields = journal_fields(entry);
        EXPECT_EQ(fields.front(), "MESSAGE=a\\x1b[2J\\xe2\\x80\\xae\\x0a");
        EXPECT_EQ(fields.back(), "SOCKBROKER_RULE=/x/\\xe2\\x80\\xaegnp.conf:1");
}

TEST(AuditStderr, TheJournalStreamIsKnownByDeviceAndInode) {
        const OwnedFd fd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
        struct stat status = {};
        ASSERT_EQ(::fstat(fd.get(), &status), 0);
        EXPECT_TRUE(is_journal_stream(fd.get(), fmt::format("{}:{}", status.st_dev, status.st_ino).c_str()));
        EXPECT_FALSE(is_journal_stream(fd.get(), fmt::format("{}:{}", status.st_dev, status.st_ino + 1).c_str()));
        EXPECT_FALSE(is_journal_stream(fd.get(), fmt::format("{}:{}", status.st_dev + 1, status.st_ino).c_str()));
        EXPECT_FALSE(is_journal_stream(fd.get(), nullptr));
}

struct CatalogEntry {
        std::string subject;
        std::string text;
};

std::map<std::string, CatalogEntry> read_catalog() {
        std::ifstream file(SOCKBROKER_SOURCE_ROOT "/units/sockbroker.catalog");
        EXPECT_TRUE(file);
        std::map<std::string, CatalogEntry> catalog;
        CatalogEntry* entry = nullptr;
        for (std::string line; std::getline(file, line);) {
                if (line.starts_with("-- ")) {
                        const auto [at, fresh] = catalog.try_emplace(line.substr(3));
                        EXPECT_TRUE(fresh) << "twice: " << line;
                        entry = &at->second;
                } else if (entry != nullptr && line.starts_with("Subject: ")) {
                        entry->subject = line.substr(9);
                } else if (entry != nullptr && !line.starts_with("Defined-By:") &&
                           !line.starts_with("Documentation:")) {
                        entry->text += line;
                }
        }
        return catalog;
}

TEST(AuditCatalog, HasOneTextForEachActionAndNoOther) {
        const std::map<std::string, CatalogEntry> catalog = read_catalog();
        std::set<std::string_view> names;
        for (std::size_t i = 0; i < kActions; ++i) {
                const auto action = static_cast<Action>(i);
                EXPECT_TRUE(names.insert(action_name(action)).second) << action_name(action);
                EXPECT_TRUE(std::regex_match(std::string(message_id(action)), std::regex("[0-9a-f]{32}")));
                const auto at = catalog.find(std::string(message_id(action)));
                ASSERT_NE(at, catalog.end()) << "no catalog entry for " << action_name(action);
                EXPECT_FALSE(at->second.subject.empty()) << action_name(action);
                EXPECT_GT(at->second.text.size(), 100U) << action_name(action);
        }
        EXPECT_EQ(catalog.size(), kActions) << "an id is there that no action has, or two actions share one";
}

TEST(AuditCatalog, NamesOnlyFieldsThatEntriesHave) {
        std::set<std::string> known;
        for (const std::string& field : journal_fields(full_entry())) {
                known.insert(field.substr(0, field.find('=')));
        }
        const std::regex reference("@([A-Z_]+)@");
        for (const auto& [id, entry] : read_catalog()) {
                const std::string text = entry.subject + entry.text;
                for (std::sregex_iterator it(text.begin(), text.end(), reference), end; it != end; ++it) {
                        EXPECT_TRUE(known.contains((*it)[1])) << id << " " << (*it)[1];
                }
        }
}

}  // namespace
}  // namespace sockbroker
