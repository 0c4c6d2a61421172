// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What one lookup costs: the dispatch program, two-LPM, one fixed socket and an empty program, by BPF_PROG_TEST_RUN.
// The programs take turns in every round, keys are fresh in every round, and only ratios of one round are compared.
// Runs in a network namespace of its own and under the three capabilities that the broker has, since the verifier makes
// slower programs without CAP_PERFMON. Refuses to measure programs whose answers differ.
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "broker/dataplane/compile/compile.h"
#include "broker/dataplane/dataplane.h"
#include "tests/bench/baselines.h"
#include "tests/bench/spread.h"
#include "tests/bench/workload.h"

namespace sockbroker::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint32_t kManyServices = 10000;
constexpr std::uint32_t kMostBindings = 1000000;
constexpr std::array kPrograms{"empty", "floor", "two_lpm", "ours"};
constexpr std::size_t kFloor = 1, kTwoLpm = 2, kOurs = 3;

struct Options {
        bool quick = false;
        unsigned rounds = 25;
        std::string family;  // of these four, empty: all
        std::string lengths;
        std::string bindings;
        std::string keys;
        std::string json;
};

[[noreturn]] void die(const std::string& why) {
        fmt::print(stderr, "lookup_bench: {}\n", why);
        std::exit(1);
}

template <class T>
T must(Result<T> result) {
        if (!result) {
                die(result.error().text());
        }
        if constexpr (!std::is_void_v<T>) {
                return std::move(*result);
        }
}

struct Answer {
        unsigned nanoseconds = 0;
        std::uint64_t cookie = 0;
};

Answer run(int program, const bpf_sk_lookup& in, int repeat) {
        bpf_sk_lookup out{};
        LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &in, .ctx_out = &out, .ctx_size_in = sizeof in,
                    .ctx_size_out = sizeof out, .repeat = repeat);
        if (bpf_prog_test_run_opts(program, &options) != 0) {
                die(fmt::format("cannot run a program: {}", strerror(errno)));
        }
        return {options.duration, out.cookie};
}

Json to_json(const Spread& value) {
        const auto round = [](double number) { return std::round(number * 1000) / 1000; };
        return {round(value.low), round(value.median), round(value.high)};
}

using Programs = std::array<int, kPrograms.size()>;
using Rounds = std::array<std::vector<double>, kPrograms.size()>;

// One round of one program is the mean of `keys` single runs, or, for a hot key, of one run repeated.
Rounds measure(const Programs& programs, unsigned rounds, unsigned keys, int repeat,
               const std::function<bpf_sk_lookup()>& next) {
        Rounds result;
        std::vector<bpf_sk_lookup> contexts(keys);
        std::vector<unsigned> times;
        for (unsigned round = 0; round <= rounds; round++) {
                for (std::size_t turn = 0; turn < programs.size(); turn++) {
                        const std::size_t which = (turn + round) % programs.size();
                        // Fresh for each program too, so that none finds lines that another has just fetched.
                        std::generate(contexts.begin(), contexts.end(), next);
                        times.clear();
                        for (const bpf_sk_lookup& context : contexts) {
                                times.push_back(run(programs[which], context, repeat).nanoseconds);
                        }
                        if (round > 0) {  // the first warms up
                                result[which].push_back(trimmed_mean(times));
                        }
                }
        }
        return result;
}

// Traffic arrives when the processor has just done something else: before each run there is another system call, which
// looks up a path and takes locks, and the programs take turns with every key, so that none finds its code and its
// branches as it left them.
Rounds measure_cold(const Programs& programs, unsigned rounds, unsigned keys,
                    const std::function<bpf_sk_lookup()>& next) {
        Rounds result;
        std::array<std::vector<unsigned>, kPrograms.size()> times;
        for (unsigned round = 0; round <= rounds; round++) {
                for (auto& each : times) {
                        each.clear();
                }
                for (unsigned key = 0; key < keys; key++) {
                        for (std::size_t turn = 0; turn < programs.size(); turn++) {
                                const std::size_t which = (turn + key) % programs.size();
                                const bpf_sk_lookup packet = next();
                                struct stat facts {};
                                (void)stat("/proc/self/status", &facts);
                                times[which].push_back(run(programs[which], packet, 1).nanoseconds);
                        }
                }
                for (std::size_t which = 0; round > 0 && which < programs.size(); which++) {
                        result[which].push_back(trimmed_mean(times[which]));
                }
        }
        return result;
}

Spread ratio(const std::vector<double>& a, const std::vector<double>& b) {
        std::vector<double> ratios;
        for (std::size_t i = 0; i < a.size(); i++) {
                ratios.push_back(a[i] / std::max(b[i], 1.0));
        }
        return spread(std::move(ratios));
}

Json summary(const Rounds& rounds) {
        Json result;
        for (std::size_t i = 0; i < kPrograms.size(); i++) {
                result["ns"][kPrograms[i]] = to_json(spread(rounds[i]));
        }
        result["ours_over_floor"] = to_json(ratio(rounds[kOurs], rounds[kFloor]));
        result["two_lpm_over_ours"] = to_json(ratio(rounds[kTwoLpm], rounds[kOurs]));
        return result;
}

std::vector<OwnedFd> make_sockets(Family family) {
        std::vector<OwnedFd> result;
        for (std::uint32_t i = 0; i <= kManyServices; i++) {
                const bool v4 = family == Family::kIpv4;
                OwnedFd fd(socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
                const sockaddr_in a4{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
                const sockaddr_in6 a6{.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
                const auto* address =
                        v4 ? reinterpret_cast<const sockaddr*>(&a4) : reinterpret_cast<const sockaddr*>(&a6);
                if (!fd || bind(fd.get(), address, v4 ? sizeof a4 : sizeof a6) != 0) {
                        die(fmt::format("cannot make socket {}: {}", i, strerror(errno)));
                }
                result.push_back(std::move(fd));
        }
        return result;
}

void serve(Dataplane& dataplane, const std::vector<OwnedFd>& sockets, Family family) {
        for (ServiceId service = 1; service <= kManyServices; service++) {
                const ServiceId id = must(dataplane.add_service(fmt::format("s{}", service)));
                Targets targets{};
                targets.slots[1][static_cast<std::size_t>(family)] = {
                        must(dataplane.install(sockets[service].get(), {.service = id, .protocol = Protocol::kUdp}))};
                must(dataplane.set_targets(id, targets));
                if (id != service) {
                        die("services have other ids than expected");
                }
        }
}

void check_answers(const Programs& programs, Workload& load) {
        for (unsigned i = 0; i < 4000; i++) {
                const bpf_sk_lookup packet =
                        i % 4 == 0 ? (i % 8 == 0 ? load.near_miss() : load.far_miss()) : load.hit();
                const std::uint64_t ours = run(programs[kOurs], packet, 1).cookie;
                if (ours != run(programs[kTwoLpm], packet, 1).cookie || (ours == 0) != (i % 4 == 0)) {
                        die("ours and two-LPM answer differently");
                }
        }
}

double seconds(const std::function<void()>& what) {
        const auto begin = std::chrono::steady_clock::now();
        what();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Json measure_case(const Case& what, const Options& options, Dataplane& dataplane, int ours,
                  const std::vector<OwnedFd>& sockets) {
        Workload load(what);
        Json result{{"family", to_string(what.family)},
                    {"lengths", to_string(what.lengths, what.family)},
                    {"services", what.services},
                    {"bindings", load.rules().size()}};
        static std::vector<sb_line> room(lines_for(kMostBindings));
        static std::array<sb_table, 4> tables;
        std::size_t bytes = 0;
        const double compile =
                seconds([&] { bytes = must(compile_into(load.rules(), room, tables)) * sizeof(sb_line); });
        const double whole = seconds([&] { must(dataplane.set_rules(load.rules())); });
        const auto baselines = must(Baselines::load(load.rules(), sockets));
        result["load"] = {{"compile_s", compile},
                          {"compile_and_write_s", whole},
                          {"two_lpm_updates_s", baselines->update_seconds()},
                          {"bytes", bytes}};

        const Programs programs{baselines->empty(), baselines->floor(), baselines->two_lpm(), ours};
        check_answers(programs, load);
        const unsigned keys = options.quick ? 200 : 500;
        const auto measured = [&](const char* part, const std::function<Rounds()>& rounds) {
                if (options.keys.empty() || options.keys == part) {
                        result[part] = summary(rounds());
                }
        };
        const auto fresh = [&](bpf_sk_lookup (Workload::*next)()) {
                return measure(programs, options.rounds, keys, 1, [&, next] { return (load.*next)(); });
        };
        measured("hot", [&] { return measure(programs, options.rounds, 1, 20000, [&] { return load.worst_hit(); }); });
        measured("cold", [&] { return measure_cold(programs, options.rounds, keys, [&] { return load.hit(); }); });
        measured("random", [&] { return fresh(&Workload::hit); });
        measured("near_miss", [&] { return fresh(&Workload::near_miss); });
        measured("far_miss", [&] { return fresh(&Workload::far_miss); });
        return result;
}

void print_row(const Json& row) {
        const auto cell = [&](const char* part) {
                const Json& ns = row[part]["ns"];
                const auto& floor = row[part]["ours_over_floor"];
                const auto& lpm = row[part]["two_lpm_over_ours"];
                return fmt::format("{:4.0f} {:4.0f} {:5.0f} | {:4.2f} ({:4.2f}-{:4.2f}) | {:5.2f} ({:5.2f}-{:5.2f})",
                                   ns["floor"][1].get<double>(), ns["ours"][1].get<double>(),
                                   ns["two_lpm"][1].get<double>(), floor[1].get<double>(), floor[0].get<double>(),
                                   floor[2].get<double>(), lpm[1].get<double>(), lpm[0].get<double>(),
                                   lpm[2].get<double>());
        };
        const std::string what =
                fmt::format("{} {:10} {:5} {:7}", row["family"].get<std::string>(), row["lengths"].get<std::string>(),
                            row["services"].get<unsigned>(), row["bindings"].get<unsigned>());
        for (const char* part : {"hot", "cold", "random", "near_miss", "far_miss"}) {
                if (row.contains(part)) {
                        fmt::print("| {} | {:9} | {} |\n", what, part, cell(part));
                }
        }
        const double ours = row["load"]["compile_and_write_s"].get<double>();
        const double lpm = row["load"]["two_lpm_updates_s"].get<double>();
        fmt::print("| {} | load      | compile {:.3f} s, with write {:.3f} s, two-LPM {:.3f} s: {:.1f} x, {} bytes |\n",
                   what, row["load"]["compile_s"].get<double>(), ours, lpm, lpm / ours,
                   row["load"]["bytes"].get<std::size_t>());
        std::fflush(stdout);
}

std::vector<Case> cases_of(Family family, const Options& options) {
        std::vector<Case> result;
        const auto add = [&](const Case& each, bool quick) {
                if ((quick || !options.quick) && (each.services == 1 || each.bindings >= each.services) &&
                    (options.lengths.empty() || options.lengths == to_string(each.lengths, family)) &&
                    (options.bindings.empty() || options.bindings == std::to_string(each.bindings))) {
                        result.push_back(each);
                }
        };
        for (const Lengths lengths : {Lengths::kFour, Lengths::kHosts, Lengths::kSixteen, Lengths::kMost}) {
                for (const std::uint32_t services : {1U, kManyServices}) {
                        for (const std::uint32_t bindings : {1U, 100U, 10000U, 100000U, kMostBindings}) {
                                const bool small = bindings != 100 && bindings != 100000;
                                add({family, lengths, services, bindings},
                                    lengths == Lengths::kFour && (services == 1 ? small : bindings == kMostBindings));
                        }
                }
        }
        add({family, Lengths::kPorts, 1, kPortBindings}, true);
        return result;
}

// A network of one's own, a bpffs of one's own, and no capability but the three.
std::string isolate() {
        static char directory[] = "/tmp/sockbroker-bench-XXXXXX";
        const rlimit files{20000, 20000};
        setrlimit(RLIMIT_NOFILE, &files);
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
            mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || mkdtemp(directory) == nullptr ||
            mount("bpf", directory, "bpf", 0, "mode=0755") != 0) {
                die(fmt::format("cannot make namespaces, run it as root: {}", strerror(errno)));
        }
        const OwnedFd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{.ifr_ifrn = {.ifrn_name = "lo"}};
        request.ifr_flags = IFF_UP;
        if (ioctl(control.get(), SIOCSIFFLAGS, &request) != 0) {
                die("cannot bring up lo");
        }
        const std::unique_ptr<_cap_struct, int (*)(void*)> caps(cap_init(), cap_free);
        const std::array<cap_value_t, 3> kept{CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN};
        for (const cap_flag_t flag : {CAP_PERMITTED, CAP_EFFECTIVE}) {
                cap_set_flag(caps.get(), flag, kept.size(), kept.data(), CAP_SET);
        }
        if (cap_set_proc(caps.get()) != 0) {
                die("cannot drop capabilities");
        }
        return directory;
}

Json load_average() {
        double load[3] = {};
        getloadavg(load, 3);
        return {load[0], load[1], load[2]};
}

int main(const Options& options) {
        const std::string bpffs = isolate();
        Json report{{"rounds", options.rounds}, {"load_average_before", load_average()}, {"rows", Json::array()}};
        fmt::print(
                "| case: family, lengths, services, bindings | keys | floor ours two-LPM, ns | ours / floor "
                "(quartiles) | "
                "two-LPM / ours (quartiles) |\n|---|---|---|---|---|\n");
        for (const Family family : {Family::kIpv4, Family::kIpv6}) {
                if (!options.family.empty() && options.family != to_string(family)) {
                        continue;
                }
                const auto sockets = make_sockets(family);
                const std::string pins = fmt::format("{}/{}", bpffs, to_string(family));
                mkdir(pins.c_str(), 0700);
                const auto dataplane = must(Dataplane::open(
                        pins, {.bindings = kMostBindings, .services = kManyServices, .sockets = kManyServices}));
                serve(*dataplane, sockets, family);
                const OwnedFd ours(bpf_obj_get((pins + "/program").c_str()));
                for (const Case& what : cases_of(family, options)) {
                        report["rows"].push_back(measure_case(what, options, *dataplane, ours.get(), sockets));
                        print_row(report["rows"].back());
                }
                must(Dataplane::unload(pins));
        }
        report["load_average_after"] = load_average();
        fmt::print("load average before {}, after {}\n", report["load_average_before"].dump(),
                   report["load_average_after"].dump());
        if (!options.json.empty() && !(std::ofstream(options.json) << report.dump(2) << '\n')) {
                die("cannot write " + options.json);
        }
        return 0;
}

}  // namespace
}  // namespace sockbroker::bench

int main(int argc, char** argv) {
        sockbroker::bench::Options options;
        const std::map<std::string, std::string*> texts{{"--json", &options.json},
                                                        {"--family", &options.family},
                                                        {"--lengths", &options.lengths},
                                                        {"--bindings", &options.bindings},
                                                        {"--keys", &options.keys}};
        for (int i = 1; i < argc; i++) {
                const std::string argument = argv[i];
                if (argument == "--quick") {
                        options.quick = true;
                        options.rounds = 21;
                } else if (const auto text = texts.find(argument); text != texts.end() && i + 1 < argc) {
                        *text->second = argv[++i];
                } else if (argument == "--rounds" && i + 1 < argc) {
                        options.rounds = static_cast<unsigned>(std::max(1, std::atoi(argv[++i])));
                } else {
                        fmt::print(stderr,
                                   "usage: lookup_bench [--quick] [--json FILE] [--rounds N] "
                                   "[--family ipv4|ipv6] "
                                   "[--lengths \"16 lengths\"|...] [--bindings N] [--keys hot|cold|...]\n");
                        return 2;
                }
        }
        return sockbroker::bench::main(options);
}
