// SPDX-License-Identifier: LGPL-2.1-or-later
//
// For how long a processor is kept from other work while a million bindings are made, replaced and freed: on each of
// them a thread of the highest real-time priority sleeps for a tenth of a millisecond at a time, and how late it wakes
// is what any other work would have waited. The broker's part runs in a child, so that its exit is measured as well;
// two-LPM beside it.
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "broker/dataplane/dataplane.h"
#include "tests/bench/baselines.h"
#include "tests/bench/workload.h"

namespace sockbroker::bench {
namespace {

constexpr std::uint32_t kBindings = 1000000;
constexpr std::int64_t kPauseNs = 100000;
constexpr std::array kPhases{"nothing", "make the maps",          "first rules",  "replace them", "exit of the broker",
                             "unload",  "two-LPM: make and fill", "two-LPM: free"};

[[noreturn]] void die(const std::string& why) {
        fmt::print(stderr, "stall_bench: {}\n", why);
        std::_Exit(1);
}

struct Shared {
        std::atomic<unsigned> phase;
        std::atomic<bool> stop;
        std::array<std::atomic<std::int64_t>, kPhases.size()> longest_ns;
        std::array<std::atomic<std::int64_t>, kPhases.size()> wakes;
};

std::int64_t now_ns() {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * std::int64_t{1000000000} + now.tv_nsec;
}

void watch(int cpu, Shared& shared) {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        const sched_param priority{.sched_priority = 99};
        if (sched_setaffinity(0, sizeof only, &only) != 0 ||
            pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) != 0) {
                die("cannot make a real-time thread, run it as root");
        }
        std::int64_t target = now_ns();
        while (!shared.stop) {
                target += kPauseNs;
                const timespec until{.tv_sec = target / 1000000000, .tv_nsec = target % 1000000000};
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
                const unsigned phase = shared.phase;
                const std::int64_t now = now_ns();
                auto& longest = shared.longest_ns.at(phase);
                std::int64_t before = longest;
                while (now - target > before && !longest.compare_exchange_weak(before, now - target)) {
                }
                shared.wakes.at(phase)++;
                target = std::max(target, now - kPauseNs);
        }
}

void in_child(const std::function<void()>& body) {
        const pid_t child = fork();
        if (child == 0) {
                body();
                std::_Exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
                die("a child failed");
        }
}

// What is freed is freed later, by a kernel thread after a grace period.
void settle() {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
}

void measure(const std::string& pins, Shared& shared) {
        const auto phase = [&](unsigned number) { shared.phase = number; };
        const Workload load({.lengths = Lengths::kFour, .bindings = kBindings});
        settle();
        in_child([&] {
                phase(1);
                auto dataplane = Dataplane::open(pins, {.bindings = kBindings});
                if (!dataplane || !(*dataplane)->add_service("s1")) {
                        die("cannot open: " + dataplane.error().text());
                }
                for (const unsigned number : {2U, 3U, 3U, 3U}) {
                        phase(number);
                        if (const auto set = (*dataplane)->set_rules(load.rules()); !set) {
                                die(set.error().text());
                        }
                }
                phase(4);
        });
        settle();
        phase(5);
        if (const auto unloaded = Dataplane::unload(pins); !unloaded) {
                die(unloaded.error().text());
        }
        settle();
        in_child([&] {
                phase(6);
                std::vector<OwnedFd> sockets;
                for (int i = 0; i < 2; i++) {
                        sockets.emplace_back(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
                        const sockaddr_in any{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
                        if (bind(sockets.back().get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0) {
                                die("cannot bind a socket");
                        }
                }
                auto two_lpm = Baselines::load(load.rules(), sockets);
                if (!two_lpm) {
                        die(two_lpm.error().text());
                }
                phase(7);
                two_lpm->reset();
        });
        settle();
}

std::vector<double> load_average() {
        std::vector<double> load(3);
        getloadavg(load.data(), 3);
        return load;
}

int main(const std::string& json) {
        const auto before = load_average();
        static char directory[] = "/tmp/sockbroker-stall-XXXXXX";
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
            mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || mkdtemp(directory) == nullptr ||
            mount("bpf", directory, "bpf", 0, "mode=0755") != 0) {
                die("cannot make namespaces, run it as root");
        }
        const std::string pins = std::string(directory) + "/pins";
        mkdir(pins.c_str(), 0700);
        void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
                die("no memory");
        }
        Shared& shared = *new (memory) Shared();
        std::vector<std::thread> watchers;
        for (unsigned cpu = 0; cpu < std::thread::hardware_concurrency(); cpu++) {
                watchers.emplace_back(watch, static_cast<int>(cpu), std::ref(shared));
        }
        measure(pins, shared);
        shared.stop = true;
        for (auto& watcher : watchers) {
                watcher.join();
        }
        fmt::print("| while | longest that a processor was away, ms | of looks |\n|---|---|---|\n");
        nlohmann::ordered_json report{{"load_average_before", before}, {"rows", nlohmann::json::array()}};
        for (std::size_t i = 0; i < kPhases.size(); i++) {
                const double longest = static_cast<double>(shared.longest_ns.at(i)) / 1e6;
                fmt::print("| {} | {:.2f} | {} |\n", kPhases.at(i), longest, shared.wakes.at(i).load());
                report["rows"].push_back(
                        {{"phase", kPhases.at(i)}, {"longest_ms", longest}, {"looks", shared.wakes.at(i).load()}});
        }
        report["load_average_after"] = load_average();
        if (!json.empty() && !(std::ofstream(json) << report.dump(2) << '\n')) {
                die("cannot write " + json);
        }
        return 0;
}

}  // namespace
}  // namespace sockbroker::bench

int main(int argc, char** argv) {
        if (argc != 1 && (argc != 3 || std::string(argv[1]) != "--json")) {
                fmt::print(stderr, "usage: stall_bench [--json FILE]\n");
                return 2;
        }
        return sockbroker::bench::main(argc == 3 ? argv[2] : "");
}
