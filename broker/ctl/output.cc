// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See output.h. Whether there are colours, how wide a table is and which pager is taken follows systemctl:
// SYSTEMD_COLORS, NO_COLOR, TERM, COLUMNS, SYSTEMD_PAGER, PAGER, SYSTEMD_LESS.
#include "broker/ctl/output.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "broker/base/net.h"
#include "broker/base/printable.h"
#include "broker/base/standard_streams.h"

namespace sockbroker::ctl {

namespace {

// Of this process: one verb runs in it.
Failure first_failure;
bool something_written = false;

std::string environment(const char* name) {
        const char* value = std::getenv(name);
        return value == nullptr ? "" : value;
}

// What SYSTEMD_COLORS= says, before all else: a boolean, or how many colours, see systemd(1). None: nothing.
std::optional<bool> colours_of_systemd() {
        std::string value = environment("SYSTEMD_COLORS");
        if (value.starts_with("auto-")) {
                return std::nullopt;
        }
        std::ranges::transform(value, value.begin(), [](unsigned char c) { return std::tolower(c); });
        const auto is = [&](const auto&... words) { return ((value == words) || ...); };
        if (is("1", "yes", "y", "true", "t", "on", "16", "256", "24bit")) {
                return true;
        }
        return is("0", "no", "n", "false", "f", "off") ? std::optional(false) : std::nullopt;
}

std::size_t columns() {
        constexpr std::size_t kUsual = 80;
        if (const auto number = parse_number(environment("COLUMNS"), 100'000); number && *number > 0) {
                return *number;
        }
        winsize size{};
        return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

// The command line of the pager; empty: none wanted.
std::string pager_command() {
        // What root sees through sudo was not asked for by root's own environment: no pager of the caller's choice.
        if (::geteuid() == 0 && std::getenv("SUDO_UID") != nullptr) {
                return "less";
        }
        std::string command = "less";
        if (std::getenv("SYSTEMD_PAGER") != nullptr) {
                command = environment("SYSTEMD_PAGER");
        } else if (std::getenv("PAGER") != nullptr) {
                command = environment("PAGER");
        }
        return command == "cat" ? "" : command;
}

[[noreturn]] void become_pager(const std::string& command, int spool) {
        ::dup2(spool, STDIN_FILENO);
        // Leave at once if it fits the screen, keep colours, chop long lines, leave the screen as it is.
        const char* const options = std::getenv("SYSTEMD_LESS");
        ::setenv("LESS", options == nullptr ? "FRSXMK" : options, options == nullptr ? 0 : 1);
        if (::geteuid() == 0 && std::getenv("SUDO_UID") != nullptr) {
                ::setenv("LESSSECURE", "1", 1);
        }
        ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
        ::_exit(127);
}

// Whether the pager ran.
bool run_pager(const std::string& command, int spool) {
        if (::lseek(spool, 0, SEEK_SET) != 0) {
                return false;
        }
        const pid_t child = ::fork();
        if (child < 0) {
                return false;
        }
        if (child == 0) {
                become_pager(command, spool);
        }
        int status = 0;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        return !WIFEXITED(status) || (WEXITSTATUS(status) != 127 && WEXITSTATUS(status) != 126);
}

bool copy(int from, std::FILE* to) {
        if (::lseek(from, 0, SEEK_SET) != 0) {
                return false;
        }
        char buffer[65536];
        ssize_t size = 0;
        while ((size = ::read(from, buffer, sizeof buffer)) > 0) {
                std::fwrite(buffer, 1, static_cast<std::size_t>(size), to);
        }
        return size == 0;
}

}  // namespace

Output::Output(const Options& options) {
        const bool terminal = ::isatty(STDOUT_FILENO) == 1;
        const std::string term = environment("TERM");
        // An empty NO_COLOR counts as unset, see https://no-color.org.
        colour_ = colours_of_systemd().value_or(terminal && environment("NO_COLOR").empty() && !term.empty() &&
                                                term != "dumb");
        if (terminal && !options.full) {
                width_ = columns();
        }
        if (terminal && options.pager && !pager_command().empty()) {
                spool_.reset(std::tmpfile());
        }
}

void Output::write(std::string_view text) {
        something_written = something_written || !text.empty();
        // Errors stick to the stream and are seen in finish().
        std::fwrite(text.data(), 1, text.size(), spool_ ? spool_.get() : stdout);
}

int Output::finish(int status) {
        if (spool_ && std::ftell(spool_.get()) > 0) {
                const int spool = ::fileno(spool_.get());
                bool good = std::fflush(spool_.get()) == 0;
                good = good && (run_pager(pager_command(), spool) || copy(spool, stdout));
                if (!good) {
                        complain("cannot keep the output for the pager, try --no-pager");
                        return kExitFailed;
                }
        }
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
                complain(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
                return kExitFailed;
        }
        return status;
}

void complain(std::string_view message) {
        complain_as(Failure{}.result, 0, message);
}

void complain_as(std::string_view result, int errnum, std::string_view message) {
        if (first_failure.message.empty()) {
                first_failure = {.result = std::string(result), .errnum = errnum, .message = std::string(message)};
        }
        print_to_stderr(fmt::format("sockbrokerctl: {}\n", printable(message)));
}

const Failure& failure() {
        return first_failure;
}

bool has_output() {
        return something_written;
}

}  // namespace sockbroker::ctl
