// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The client against a real control socket in a directory of its own; the other end is played by a thread that speaks,
// or breaks, the protocol.
#include "broker/client/client.h"

#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "broker/client/descriptors.h"
#include "broker/client/register.h"
#include "broker/client/retrieve.h"
#include "broker/protocol/message.h"
#include "broker/protocol/request.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

class ClientTest : public testing::Test {
protected:
        void SetUp() override {
                char name[] = "/tmp/sockbroker-client-XXXXXX";
                ASSERT_NE(mkdtemp(name), nullptr);
                directory_ = name;
                listener_ = test::made(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
                sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
                std::strcpy(address.sun_path, path().c_str());
                test::must(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
        }

        void TearDown() override {
                if (server_.joinable()) {
                        server_.join();
                }
                unlink(path().c_str());
                rmdir(directory_.c_str());
        }

        [[nodiscard]] std::string path() const { return directory_ + "/control"; }

        // Accepts one connection, receives one request and hands both over.
        void serve(std::function<void(int connection, Message request)> body) {
                test::must(listen(listener_.get(), 1), "listen");
                server_ = std::thread([this, body = std::move(body)] {
                        const OwnedFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
                        pollfd ready{.fd = connection.get(), .events = POLLIN, .revents = 0};
                        poll(&ready, 1, 10'000);
                        auto request = receive(connection.get());
                        body(connection.get(), request ? std::move(*request) : Message{});
                });
        }

        // The answer to "VERB=list" of a broker that sends these records and closes.
        Result<ControlClient::Answer> answer_to(std::vector<std::string> records) {
                serve([records = std::move(records)](int connection, const Message&) {
                        for (const auto& record : records) {
                                (void)send_record(connection, record);
                        }
                });
                auto client = ControlClient::connect(directory_);
                if (!client) {
                        return std::unexpected(client.error());
                }
                return client->call("VERB=list\n", {}, [this](std::string_view line) { lines_.emplace_back(line); });
        }

        // Of a broker that reads no request, sends `record` if there is one, and closes: as it does to a connection too
        // many.
        enum Sends : std::uint8_t { kBeforeTheEnd, kAfterTheEnd };
        Result<ControlAnswer> answer_of_one_that_ends(const std::string& record, Sends sends) {
                test::must(listen(listener_.get(), 1), "listen");
                const auto client = open_control(directory_, std::chrono::seconds(10));
                if (!client) {
                        return std::unexpected(client.error());
                }
                OwnedFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
                if (!record.empty()) {
                        (void)send_record(connection.get(), record);
                }
                Exchange exchange(client->get(), path(), "VERB=list\n", {});
                if (sends == kBeforeTheEnd) {
                        EXPECT_TRUE(exchange.advance({}, nullptr)->moved);
                }
                connection.reset();
                for (;;) {
                        auto step = exchange.advance({}, nullptr);
                        if (!step) {
                                return std::unexpected(step.error());
                        }
                        if (step->answer) {
                                return *step->answer;
                        }
                }
        }

        std::string directory_;
        OwnedFd listener_;
        std::thread server_;
        std::vector<std::string> lines_;
};

TEST_F(ClientTest, LinesOfAllRecordsComeInOrderBeforeTheResult) {
        const auto answer =
                answer_to({"{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}\n", format_result(ResultCode::kOk, "three")});
        ASSERT_TRUE(answer) << answer.error().text();
        EXPECT_EQ(answer->result, "ok");
        EXPECT_EQ(answer->errnum, 0);
        EXPECT_EQ(answer->message, "three");
        EXPECT_EQ(lines_, (std::vector<std::string>{"{\"a\":1}", "{\"a\":2}", "{\"a\":3}"}));
}

TEST_F(ClientTest, ARefusalIsAnAnswerNotAnError) {
        const auto answer = answer_to({format_result(ResultCode::kNotPermitted, "no rule=admits you") + "CAUSE=PID\n"});
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->cause, "PID");
        EXPECT_EQ(answer->result, "not-permitted");
        EXPECT_EQ(answer->errnum, EACCES);
        EXPECT_EQ(answer->message, "no rule=admits you");
        EXPECT_TRUE(lines_.empty());
}

TEST_F(ClientTest, ARecordOfSixtyFourKibibytesFits) {
        std::string record(64 * 1024, 'x');
        record.back() = '\n';
        ASSERT_TRUE(answer_to({record, format_result(ResultCode::kOk, "")}));
        ASSERT_EQ(lines_.size(), 1U);
        EXPECT_EQ(lines_[0].size(), 64 * 1024 - 1U);
}

TEST_F(ClientTest, DescriptorsGoWithTheRequest) {
        const auto mine = test::listener();
        serve([](int connection, const Message& request) {
                const bool good = request.text == "FDSTORE=1\nFDNAME=web\n" && request.fds.size() == 2;
                (void)send_record(connection, format_result(good ? ResultCode::kOk : ResultCode::kMalformed, ""));
        });
        auto client = ControlClient::connect(directory_);
        ASSERT_TRUE(client);
        const auto answer = client->call("FDSTORE=1\nFDNAME=web\n", {mine.get(), mine.get()}, {});
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->result, "ok");
}

TEST_F(ClientTest, SeveralCallsFollowOnOneConnection) {
        serve([](int connection, const Message&) {
                (void)send_record(connection, "first\n");
                (void)send_record(connection, format_result(ResultCode::kOk, "1"));
                pollfd ready{.fd = connection, .events = POLLIN, .revents = 0};
                poll(&ready, 1, 10'000);
                (void)receive(connection);
                (void)send_record(connection, format_result(ResultCode::kBusy, "2"));
        });
        auto client = ControlClient::connect(directory_);
        ASSERT_TRUE(client);
        EXPECT_EQ(client->call("VERB=list", {}, {})->message, "1");
        EXPECT_EQ(client->call("VERB=list", {}, {})->result, "busy");
}

TEST_F(ClientTest, ABrokerThatIsNotThereIsNamedWithTheQuestionToAsk) {
        const auto refused = ControlClient::connect(directory_);  // nobody listens
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().text(),
                  "cannot connect to " + path() + " (is sockbrokerd running?): Connection refused");
        const auto absent = ControlClient::connect(directory_ + "/nothing");
        ASSERT_FALSE(absent);
        EXPECT_EQ(absent.error().errnum, ENOENT);
        EXPECT_EQ(ControlClient::connect("/" + std::string(120, 'x')).error().errnum, ENAMETOOLONG);
}

TEST_F(ClientTest, ASilentBrokerIsAnErrorAfterTheTimeout) {
        test::must(listen(listener_.get(), 1), "listen");
        auto client = ControlClient::connect(directory_);
        ASSERT_TRUE(client);
        client->set_timeout(std::chrono::milliseconds(50));
        const auto answer = client->call("VERB=list", {}, {});
        ASSERT_FALSE(answer);
        EXPECT_EQ(answer.error().errnum, ETIMEDOUT);
        EXPECT_EQ(answer.error().message,
                  "the broker at " + path() + " does not answer; see systemctl status sockbrokerd");
}

TEST_F(ClientTest, AConnectionThatBreaksOffIsAnError) {
        const auto answer = answer_to({"{\"a\":1}\n"});
        ASSERT_FALSE(answer);
        EXPECT_EQ(answer.error().errnum, ECONNRESET);
}

TEST_F(ClientTest, AnAnswerThatCameBeforeTheRequestIsHeard) {
        const std::string record = format_result(ResultCode::kRateLimited, "too many connections");
        for (const auto sends : {kBeforeTheEnd, kAfterTheEnd}) {
                const auto answer = answer_of_one_that_ends(record, sends);
                ASSERT_TRUE(answer) << answer.error().text();
                EXPECT_EQ(answer->result, "rate-limited");
        }
}

TEST_F(ClientTest, AnEndWithoutAWordIsTheSameWheneverItComes) {
        for (const auto sends : {kBeforeTheEnd, kAfterTheEnd}) {
                const auto answer = answer_of_one_that_ends("", sends);
                ASSERT_FALSE(answer);
                EXPECT_EQ(answer.error().errnum, ECONNRESET);
                EXPECT_EQ(answer.error().message,
                          "the broker at " + path() + " closed the connection before its answer was complete");
        }
}

TEST_F(ClientTest, ARecordWithoutItsLastNewLineIsAnError) {
        EXPECT_EQ(answer_to({"{\"a\":1}"}).error().errnum, EPROTO);
}

TEST_F(ClientTest, ATooLongRecordIsAnError) {
        EXPECT_EQ(answer_to({std::string(64 * 1024, 'x') + "\n"}).error().message,
                  path() + " answered with a record of more than 65536 bytes");
}

TEST_F(ClientTest, AResultRecordMustBeWhole) {
        EXPECT_EQ(answer_to({"RESULT=ok\nERRNO=0\n"}).error().errnum, EPROTO);
}

TEST_F(ClientTest, AnErrnoThatIsNoNumberIsAnError) {
        EXPECT_EQ(answer_to({"RESULT=ok\nERRNO=-1\nMESSAGE=\n"}).error().errnum, EPROTO);
}

TEST(Register, AsksAnOlderBrokerWithoutWhatItDoesNotKnow) {
        RegisterOperation operation("web", {}, {.pid = 7, .inherit = true, .family = Family::kIpv4});
        const std::string always = "FDSTORE=1\nFDNAME=web\nPID=7\n";
        std::vector<std::string> asked;
        for (bool over = false; !over;) {
                ASSERT_LT(asked.size(), 9U);
                asked.push_back(operation.next().request);
                ControlAnswer unknown{.result = "malformed", .message = "unknown key", .warnings = {}};
                over = operation.take(unknown, {})->over;
        }
        EXPECT_EQ(asked, (std::vector<std::string>{always + "MIGRATE=1\nINHERIT=1\nFAMILY=ipv4\n",
                                                   always + "MIGRATE=1\n", always}));
        RegisterOperation without("web", {}, {.migrate = false});
        EXPECT_EQ(without.next().request, "FDSTORE=1\nFDNAME=web\n");
}

// A process that may have few descriptors.
class Retrieve : public testing::Test {
protected:
        void SetUp() override {
                ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
                const rlimit few{.rlim_cur = 64, .rlim_max = before_.rlim_max};
                ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
                free_ = free_descriptors(1000);
        }
        void TearDown() override { ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

        // What becomes of an operation that has counted so many held sockets of web.
        Result<Operation::Course> counted(RetrieveOperation& operation, std::size_t held) {
                EXPECT_EQ(operation.next().request, "VERB=list\n");
                for (std::size_t i = 0; i < held; ++i) {
                        operation.take_line(R"({"service":"web","state":"held"})");
                        operation.take_line(R"({"service":"web","state":"live"})");
                        operation.take_line(R"({"service":"other","state":"held"})");
                }
                operation.take_line(R"({"service":"other","state":"held"})");
                ControlAnswer done{.result = "ok", .message = "", .warnings = {}};
                return operation.take(done, {});
        }

        rlimit before_{};
        std::size_t free_ = 0;
        std::vector<OwnedFd> fds_;
        ControlAnswer refused_{.result = "rate-limited", .message = "", .warnings = {}};
};

TEST_F(Retrieve, FreeDescriptorsAreCountedAsFarAsTheyMatter) {
        EXPECT_GT(free_, 30U);
        EXPECT_EQ(free_descriptors(7), 7U);
        const OwnedFd one(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
        EXPECT_EQ(free_descriptors(1000), free_ - 1);
}

TEST_F(Retrieve, AProgramThatMayNotAskForItsLimitHasEnough) {
        std::size_t found = 0;
        std::thread([&] {
                const std::unique_ptr<void, decltype(&seccomp_release)> filter(seccomp_init(SCMP_ACT_ALLOW),
                                                                               seccomp_release);
                for (const int call : {SCMP_SYS(prlimit64), SCMP_SYS(getrlimit)}) {
                        ASSERT_EQ(seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0), 0);
                }
                ASSERT_EQ(seccomp_load(filter.get()), 0);  // for this thread alone
                found = free_descriptors(1000);
        }).join();
        EXPECT_EQ(found, 1000U);
}

TEST_F(Retrieve, AsManyAsThereAreDescriptorsForAreAskedFor) {
        RetrieveOperation operation("web", fds_);
        const auto course = counted(operation, free_);
        ASSERT_TRUE(course) << course.error().text();
        EXPECT_FALSE(course->over);
        EXPECT_EQ(operation.next().request, "FDRETRIEVE=1\nFDNAME=web\n");
        EXPECT_TRUE(operation.take(refused_, {})->over);
}

// sockbroker_retrieve(3) promises at least one.
TEST_F(Retrieve, AnOkWithoutASocketIsNotTheProtocol) {
        RetrieveOperation operation("web", fds_);
        ASSERT_TRUE(counted(operation, 1));
        (void)operation.next();
        ControlAnswer empty{.result = "ok", .message = "", .warnings = {}};
        const auto course = operation.take(empty, {});
        ASSERT_FALSE(course);
        EXPECT_EQ(course.error().errnum, EPROTO);
}

TEST_F(Retrieve, OneMoreIsNotAskedFor) {
        RetrieveOperation operation("web", fds_);
        const auto course = counted(operation, free_ + 1);
        ASSERT_FALSE(course);
        EXPECT_EQ(course.error().errnum, EMFILE);
}

TEST_F(Retrieve, WithoutANameItIsAsManyAsAnyServiceHas) {
        RetrieveOperation operation("", fds_);
        EXPECT_FALSE(counted(operation, free_));  // the other service has one more
}

TEST_F(Retrieve, ARefusalToCountIsTheAnswer) {
        RetrieveOperation operation("web", fds_);
        (void)operation.next();
        EXPECT_TRUE(operation.take(refused_, {})->over);
}

TEST_F(Retrieve, NobodyCountsWithDescriptorsForWhatAMessageCarriesAndWhatCameIsNotLostForWhatCannot) {
        const rlimit enough{.rlim_cur = 64 + kMaxMessageFds, .rlim_max = before_.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &enough), 0);
        RetrieveOperation operation("web", fds_);
        EXPECT_EQ(operation.next().request, "FDRETRIEVE=1\nFDNAME=web\n");
        std::vector<OwnedFd> received;
        for (std::size_t i = 0; i < kMaxMessageFds; ++i) {
                received.emplace_back(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
        }
        ControlAnswer answer{.result = "ok", .message = "", .warnings = {}};
        EXPECT_FALSE(operation.take(answer, std::move(received))->over);
        EXPECT_EQ(operation.next().request, "VERB=list\n");
        for (std::size_t i = 0; i <= free_; ++i) {
                operation.take_line(R"({"service":"web","state":"held"})");
        }
        EXPECT_TRUE(operation.take(answer, {})->over);
        EXPECT_EQ(fds_.size(), kMaxMessageFds);
        EXPECT_EQ(answer.warnings.size(), 1U);
}

}  // namespace
}  // namespace sockbroker
