// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Clients that know nothing of the broker, and the examples of docs/protocol.md as they stand there, against real
// sockets: what they send is a request.
#include <poll.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "broker/peer/peer.h"
#include "broker/protocol/message.h"
#include "broker/protocol/request.h"
#include "broker/socket/facts.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

// The n-th block of the manual in that language, with the runtime directory replaced.
std::string manual_example(const std::string& language, int n, const std::string& runtime_dir) {
        std::ifstream file(SOCKBROKER_SOURCE_ROOT "/docs/protocol.md");
        std::stringstream text;
        text << file.rdbuf();
        std::string manual = text.str();
        std::size_t start = 0;
        for (int i = 0; i <= n; i++) {
                start = manual.find("```" + language + "\n", start);
                if (start == std::string::npos) {
                        return {};
                }
                start += language.size() + 4;
        }
        std::string example = manual.substr(start, manual.find("\n```", start) + 1 - start);
        const std::string installed = "/run/sockbroker/";
        for (auto at = example.find(installed); at != std::string::npos; at = example.find(installed, at)) {
                example.replace(at, installed.size(), runtime_dir + "/");
        }
        return example;
}

class StockClients : public testing::Test {
protected:
        void SetUp() override {
                char name[] = "/tmp/sockbroker-stock-XXXXXX";
                ASSERT_NE(mkdtemp(name), nullptr);
                directory_ = name;
                notify_ = bound("notify", SOCK_DGRAM);
                control_ = bound("control", SOCK_SEQPACKET);
                test::must(listen(control_.get(), 1), "listen");
        }

        void TearDown() override {
                for (const char* file : {"/notify", "/control", "/example.py"}) {
                        unlink((directory_ + file).c_str());
                }
                rmdir(directory_.c_str());
        }

        OwnedFd bound(const std::string& file, int type) {
                auto fd = test::made(socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket");
                sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
                std::strcpy(address.sun_path, (directory_ + "/" + file).c_str());
                test::must(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
                EXPECT_TRUE(prepare_receiver(fd.get()));
                return fd;
        }

        static void wait_readable(int fd) {
                pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
                EXPECT_EQ(poll(&ready, 1, 20'000), 1) << "nothing came";
        }

        static Message next(int fd) {
                wait_readable(fd);
                auto message = receive(fd);
                EXPECT_TRUE(message) << message.error().text();
                return message ? std::move(*message) : Message{};
        }

        static void expect_web_listener(const Message& message, Channel channel, pid_t sender) {
                const auto request = parse_request(channel, message.text, message.fds.size());
                ASSERT_TRUE(request) << request.error().message;
                EXPECT_EQ(request->verb, Verb::kStore);
                EXPECT_EQ(request->service, "web");
                ASSERT_EQ(message.fds.size(), 1U);
                EXPECT_FALSE(check_socket(*probe_socket(message.fds[0].get()), *own_netns_cookie()));
                const auto peer = identify(message);
                ASSERT_TRUE(peer) << peer.error().message;
                EXPECT_EQ(peer->pid, sender);
        }

        // Runs a program with NOTIFY_SOCKET set to ours.
        [[nodiscard]] std::unique_ptr<test::Child> run(std::vector<const char*> arguments) {
                return std::make_unique<test::Child>([this, arguments]() mutable {
                        setenv("NOTIFY_SOCKET", (directory_ + "/notify").c_str(), 1);
                        arguments.push_back(nullptr);
                        execv(arguments[0], const_cast<char* const*>(arguments.data()));
                        return 127;
                });
        }

        std::unique_ptr<test::Child> run_python_example(int n) {
                const std::string path = directory_ + "/example.py";
                const auto example = manual_example("python", n, directory_);
                EXPECT_NE(example, "") << "the manual lacks the example";
                std::ofstream(path) << example;
                return run({"/usr/bin/python3", path.c_str()});
        }

        std::string directory_;
        OwnedFd notify_;
        OwnedFd control_;
};

TEST_F(StockClients, LibsystemdStoresASocketAndWaitsAtABarrier) {
        test::Child child([this] {
                const auto fd = test::listener();
                const int number = fd.get();
                setenv("NOTIFY_SOCKET", (directory_ + "/notify").c_str(), 1);
                return sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=web", &number, 1) > 0 &&
                                       sd_notify_barrier(0, 20'000'000) > 0
                               ? 0
                               : 1;
        });
        expect_web_listener(next(notify_.get()), Channel::kNotify, child.pid());
        {
                const auto barrier = next(notify_.get());
                const auto request = parse_request(Channel::kNotify, barrier.text, barrier.fds.size());
                ASSERT_TRUE(request) << request.error().message;
                EXPECT_EQ(request->verb, Verb::kBarrier);
        }  // closing its descriptor lets the client go on
        EXPECT_EQ(child.wait(), 0);
}

TEST_F(StockClients, SystemdNotifyWithWordsForPidOneAsksNothing) {
        auto child = run({"/usr/bin/systemd-notify", "--ready", "--status=serving", "--no-block"});
        const auto message = next(notify_.get());
        EXPECT_EQ(message.text.substr(0, 7), "READY=1");
        const auto request = parse_request(Channel::kNotify, message.text, message.fds.size());
        ASSERT_TRUE(request) << request.error().message;
        EXPECT_EQ(request->verb, Verb::kNothing);
        EXPECT_EQ(child->wait(), 0);
}

TEST_F(StockClients, TheManualsPythonOnNotify) {
        auto child = run_python_example(0);
        expect_web_listener(next(notify_.get()), Channel::kNotify, child->pid());
        EXPECT_EQ(child->wait(), 0);
}

TEST_F(StockClients, TheManualsPythonOnControlReadsTheAnswer) {
        for (const auto code : {ResultCode::kOk, ResultCode::kNotPermitted}) {
                auto child = run_python_example(1);
                wait_readable(control_.get());
                const OwnedFd connection(accept4(control_.get(), nullptr, nullptr, SOCK_CLOEXEC));
                ASSERT_TRUE(prepare_receiver(connection.get()));
                expect_web_listener(next(connection.get()), Channel::kControl, child->pid());
                ASSERT_TRUE(send_record(connection.get(), format_result(code, "because = of that")));
                EXPECT_EQ(child->wait(), code == ResultCode::kOk ? 0 : 1) << "a refusal is an exception";
        }
}

}  // namespace
}  // namespace sockbroker
