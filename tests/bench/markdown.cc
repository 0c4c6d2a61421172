// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/bench/markdown.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

namespace sockbroker::bench {

namespace {

using Json = nlohmann::ordered_json;
using Choice = std::function<bool(const Json& row)>;

double median(const Json& row, const char* keys, const char* ratio) {
        return row[keys][ratio][1].get<double>();
}

std::string text(const Json& row, const char* field) {
        return row[field].get<std::string>();
}

unsigned number(const Json& row, const char* field) {
        return row[field].get<unsigned>();
}

std::string thousands(unsigned value) {
        std::string result = std::to_string(value);
        for (std::size_t at = result.size(); at > 3;) {
                at -= 3;
                result.insert(result.begin() + static_cast<std::ptrdiff_t>(at), ',');
        }
        return result;
}

bool of_lengths(const Json& row, std::initializer_list<const char*> lengths) {
        return std::any_of(lengths.begin(), lengths.end(),
                           [&](const char* each) { return text(row, "lengths") == each; });
}

// One line of the goals: the least and the greatest of the medians of all rows that are meant.
std::string goal(const Json& rows, const std::string& what, double wanted, bool at_most, const Choice& meant,
                 const std::function<double(const Json&)>& value) {
        double least = std::numeric_limits<double>::infinity(), most = 0;
        for (const Json& row : rows) {
                if (meant(row)) {
                        least = std::min(least, value(row));
                        most = std::max(most, value(row));
                }
        }
        if (most == 0) {
                return "";  // not measured in this run
        }
        const bool met = at_most ? most <= wanted : least >= wanted;
        return fmt::format("| {} | {} {} | {:.2f} to {:.2f} | {} |\n", what, at_most ? "at most" : "at least", wanted,
                           least, most, met ? "met" : "missed");
}

std::string goals(const Json& rows) {
        const auto hot = [](const Json& row) { return median(row, "hot", "ours_over_floor"); };
        const auto random = [](const Json& row) { return median(row, "random", "two_lpm_over_ours"); };
        const auto million = [](const Json& row) { return number(row, "bindings") == 1000000; };
        const auto up_to_four = [](const Json& row) { return of_lengths(row, {"hosts", "4 lengths"}); };
        const auto many = [](const Json& row) { return of_lengths(row, {"16 lengths", "30 lengths", "33 lengths"}); };
        std::string result = "| goal | wanted | measured | |\n|---|---|---|---|\n";
        result += goal(
                rows, "hot key, host prefixes, every size, ours / floor", 1.5, true,
                [](const Json& row) { return of_lengths(row, {"hosts"}); }, hot);
        result += goal(
                rows, "hot key, four lengths (the last one found), ours / floor", 2, true,
                [](const Json& row) { return of_lengths(row, {"4 lengths"}); }, hot);
        for (const char* family : {"ipv4", "ipv6"}) {
                result += goal(
                        rows,
                        fmt::format("hot key, 16 lengths and more (the last one found), {}, ours / floor", family), 2,
                        true, [&](const Json& row) { return many(row) && text(row, "family") == family; }, hot);
        }
        result += goal(
                rows, "random keys, 1,000,000, one service, up to four lengths, two-LPM / ours", 5, false,
                [&](const Json& row) { return million(row) && up_to_four(row) && number(row, "services") == 1; },
                random);
        result += goal(
                rows, "the same, 10,000 services", 4, false,
                [&](const Json& row) { return million(row) && up_to_four(row) && number(row, "services") > 1; },
                random);
        for (const char* family : {"ipv4", "ipv6"}) {
                result += goal(
                        rows, fmt::format("random keys, 1,000,000, 16 lengths and more, {}, two-LPM / ours", family), 3,
                        false,
                        [&](const Json& row) { return million(row) && many(row) && text(row, "family") == family; },
                        random);
        }
        for (const char* family : {"ipv4", "ipv6"}) {
                for (const char* keys : {"hot", "random", "near_miss", "far_miss"}) {
                        result += goal(
                                rows, fmt::format("never slower than two-LPM: {}, {}", keys, family), 1, false,
                                [&](const Json& row) { return text(row, "family") == family; },
                                [&](const Json& row) { return median(row, keys, "two_lpm_over_ours"); });
                }
        }
        result += goal(rows, "load of 1,000,000: two-LPM's updates / compile, write and grace", 10, false, million,
                       [](const Json& row) {
                               return row["load"]["two_lpm_updates_s"].get<double>() /
                                      row["load"]["compile_and_write_s"].get<double>();
                       });
        return result;
}

std::string look_ups(const Json& rows) {
        const auto cell = [](const Json& row, const char* keys, const char* ratio, int digits) {
                const Json& value = row[keys][ratio];
                return fmt::format("{:.{}f} ({:.{}f}-{:.{}f})", value[1].get<double>(), digits, value[0].get<double>(),
                                   digits, value[2].get<double>(), digits);
        };
        std::string result =
                "| family | lengths | services | bindings | hot, x floor | random, x floor | two-LPM / ours: hot | "
                "random | near miss | far miss |\n|---|---|---|---|---|---|---|---|---|---|\n";
        for (const Json& row : rows) {
                result += fmt::format(
                        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", text(row, "family"),
                        text(row, "lengths"), thousands(number(row, "services")), thousands(number(row, "bindings")),
                        cell(row, "hot", "ours_over_floor", 2), cell(row, "random", "ours_over_floor", 1),
                        cell(row, "hot", "two_lpm_over_ours", 1), cell(row, "random", "two_lpm_over_ours", 1),
                        cell(row, "near_miss", "two_lpm_over_ours", 1), cell(row, "far_miss", "two_lpm_over_ours", 2));
        }
        return result;
}

std::string nanoseconds_and_loads(const Json& rows) {
        std::string times =
                "| family | lengths | services | hot: floor, ours, two-LPM | random: floor, ours, two-LPM |\n"
                "|---|---|---|---|---|\n";
        std::string loads =
                "| family | lengths | services | compile, s | compile, write and grace, s | two-LPM's updates, s | "
                "times faster | bytes a binding |\n|---|---|---|---|---|---|---|---|\n";
        for (const Json& row : rows) {
                if (number(row, "bindings") != 1000000) {
                        continue;
                }
                const std::string what = fmt::format("| {} | {} | {} |", text(row, "family"), text(row, "lengths"),
                                                     thousands(number(row, "services")));
                const auto three = [&](const char* keys) {
                        const Json& ns = row[keys]["ns"];
                        return fmt::format("{:.0f}, {:.0f}, {:.0f}", ns["floor"][1].get<double>(),
                                           ns["ours"][1].get<double>(), ns["two_lpm"][1].get<double>());
                };
                times += fmt::format("{} {} | {} |\n", what, three("hot"), three("random"));
                const Json& load = row["load"];
                const double ours = load["compile_and_write_s"].get<double>();
                const double lpm = load["two_lpm_updates_s"].get<double>();
                loads += fmt::format("{} {:.2f} | {:.2f} | {:.2f} | {:.1f} | {:.0f} |\n", what,
                                     load["compile_s"].get<double>(), ours, lpm, lpm / ours,
                                     load["bytes"].get<double>() / 1e6);
        }
        return "Nanoseconds at 1,000,000 bindings, medians:\n\n" + times + "\n## Load of 1,000,000 bindings\n\n" +
               loads;
}

}  // namespace

std::string to_markdown(const Json& report) {
        const Json& rows = report["rows"];
        return fmt::format("Load average before {}, after {}; {} rounds.\n\n## Goals\n\n{}\n## Look-ups\n\n{}\n{}",
                           report["load_average_before"].dump(), report["load_average_after"].dump(),
                           report["rounds"].get<unsigned>(), goals(rows), look_ups(rows), nanoseconds_and_loads(rows));
}

}  // namespace sockbroker::bench
