// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-exporter: the broker's metrics over HTTP, sockbroker-exporter(8). A process of its own, without privilege:
// it asks the broker as anybody may, and what its clients do costs the broker nothing but that question, one at a time.
#include <fmt/format.h>
#include <microhttpd.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>

#include "broker/base/standard_streams.h"
#include "broker/ctl/metrics.h"
#include "broker/ctl/options.h"

namespace {

using namespace sockbroker::ctl;
using sockbroker::print_to_stderr;

constexpr unsigned kMaxConnections = 64, kIdleSeconds = 10;

constexpr const char* kHelp =
        "sockbroker-exporter [OPTION...]\n"
        "\n"
        "Serve the broker's metrics over HTTP on a socket that systemd passes.\n"
        "\n"
        "  -h --help             Show this help\n"
        "     --version          Show the version\n"
        "     --netns=NAME       Of the broker of this network namespace\n"
        "     --runtime-dir=DIR  Where the broker's sockets are (/run/sockbroker)\n"
        "\n"
        "See sockbroker-exporter(8) for details.\n";

struct EndResponse {
        void operator()(MHD_Response* response) const { MHD_destroy_response(response); }
};
using Response = std::unique_ptr<MHD_Response, EndResponse>;

// Of one format. Clients read as slowly as they like, and each keeps the page that it was given.
struct Pages {
        static constexpr std::size_t kMost = 3;
        static constexpr auto kLong = std::chrono::seconds(1);

        std::size_t count = 0;  // of those that somebody has still, the newest among them
        Response newest;
        std::chrono::steady_clock::time_point made;
        bool took_long = false;

        // Instead of another one: while so many are on their way, and for those who waited while it was made, because
        // the broker hangs.
        [[nodiscard]] bool is_good() const {
                return newest != nullptr &&
                       (count >= kMost || (took_long && std::chrono::steady_clock::now() - made < kLong));
        }
};

struct Page {
        std::string text;
        std::size_t& count;

        Page(std::string words, std::size_t& pages) : text(std::move(words)), count(pages) { count++; }
        Page(const Page&) = delete;
        Page& operator=(const Page&) = delete;
        ~Page() { count--; }
};

struct Exporter {
        Options options;
        std::mutex one_question;     // at a time: scrapes of many clients are no load on the broker
        std::array<Pages, 2> pages;  // by format; of libmicrohttpd's thread alone, as what follows
        std::deque<int> open;        // connections, the oldest first
};

// Anybody on the host may connect, and send his request as slowly as he likes: near the limit the oldest connection
// makes room. A scrape takes milliseconds.
void on_connection(void* self, MHD_Connection* connection, void**, MHD_ConnectionNotificationCode code) {
        const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        auto& open = static_cast<Exporter*>(self)->open;
        if (info == nullptr) {
                return;
        }
        if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
                std::erase(open, info->connect_fd);
                return;
        }
        try {
                open.push_back(info->connect_fd);
        } catch (const std::bad_alloc&) {
                return;  // it ends when it was idle for long enough
        }
        if (open.size() > kMaxConnections / 2) {
                (void)shutdown(open.front(), SHUT_RDWR);
                open.pop_front();
        }
}

MHD_Result answer(MHD_Connection* connection, unsigned status, std::string text) {
        const Response response(MHD_create_response_from_buffer(text.size(), text.data(), MHD_RESPMEM_MUST_COPY));
        if (!response) {
                return MHD_NO;
        }
        (void)MHD_add_response_header(response.get(), MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
        return MHD_queue_response(connection, status, response.get());
}

void make_page(Exporter& exporter, MetricsFormat format, Pages& pages) {
        const auto began = std::chrono::steady_clock::now();
        const auto observed = observe(exporter.options);
        if (!observed.why_not.empty()) {
                print_to_stderr(fmt::format("<4>{}\n", observed.why_not));
        }
        auto page = std::make_unique<Page>(render_metrics(observed.seen, format), pages.count);
        pages.newest.reset(MHD_create_response_from_buffer_with_free_callback_cls(
                page->text.size(), page->text.data(), [](void* ended) { delete static_cast<Page*>(ended); },
                page.get()));
        if (!pages.newest) {
                throw std::bad_alloc();
        }
        (void)page.release();
        (void)MHD_add_response_header(pages.newest.get(), MHD_HTTP_HEADER_CONTENT_TYPE,
                                      std::string(content_type(format)).c_str());
        pages.made = std::chrono::steady_clock::now();
        pages.took_long = pages.made - began >= Pages::kLong;
}

MHD_Result serve(Exporter& exporter, MHD_Connection* connection, std::string_view url, std::string_view method) {
        if (method != "GET" && method != "HEAD") {
                return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is served\n");
        }
        if (url != "/metrics") {
                return answer(connection, url == "/" ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND,
                              "the metrics are at /metrics\n");
        }
        const char* accepted = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
        const bool open = accepted != nullptr &&
                          std::string_view(accepted).find("application/openmetrics-text") != std::string_view::npos;
        const auto format = open ? MetricsFormat::kOpenMetrics : MetricsFormat::kPrometheus;
        const std::lock_guard lock(exporter.one_question);
        Pages& pages = exporter.pages.at(open ? 1 : 0);
        if (!pages.is_good()) {
                make_page(exporter, format, pages);
        }
        return MHD_queue_response(connection, MHD_HTTP_OK, pages.newest.get());
}

MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method, const char*,
                      const char*, std::size_t* upload, void**) {
        *upload = 0;  // a body is not asked for
        try {
                return serve(*static_cast<Exporter*>(self), connection, url, method);
        } catch (const std::exception& error) {  // none may cross the C callback
                print_to_stderr(fmt::format("<3>{}\n", error.what()));
                return MHD_NO;
        }
}

int run(int argc, char** argv) {
        Exporter exporter;
        auto options = parse_options(argc, argv);
        if (!options || !options->arguments.empty() || options->verb != Options{}.verb) {
                print_to_stderr(fmt::format("sockbroker-exporter: {}\n",
                                            options ? "takes no arguments, see --help" : options.error().text()));
                return kExitUsage;
        }
        if (options->help) {
                fmt::print("{}", kHelp);
                return kExitOk;
        }
        if (options->version) {
                fmt::print("sockbroker-exporter {}\n", SOCKBROKER_VERSION);
                return kExitOk;
        }
        exporter.options = std::move(*options);
        exporter.options.verb = "metrics";
        if (sd_listen_fds(1) != 1 || sd_is_socket(SD_LISTEN_FDS_START, 0, SOCK_STREAM, 1) <= 0) {
                print_to_stderr(
                        "sockbroker-exporter: needs one listening socket of systemd: systemctl start "
                        "sockbroker-exporter.socket\n");
                return kExitFailed;
        }
        // Before there is another thread: the signals that end it come here alone.
        sigset_t ends;
        sigemptyset(&ends);
        sigaddset(&ends, SIGTERM);
        sigaddset(&ends, SIGINT);
        pthread_sigmask(SIG_BLOCK, &ends, nullptr);
        MHD_Daemon* daemon = MHD_start_daemon(
                MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, nullptr, nullptr, on_request,
                &exporter, MHD_OPTION_LISTEN_SOCKET, SD_LISTEN_FDS_START, MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
                MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, std::size_t{32} * 1024,
                MHD_OPTION_NOTIFY_CONNECTION, on_connection, &exporter, MHD_OPTION_END);
        if (daemon == nullptr) {
                print_to_stderr("sockbroker-exporter: cannot serve on the socket that was passed\n");
                return kExitFailed;
        }
        (void)sd_notify(0, "READY=1");
        int signal = 0;
        sigwait(&ends, &signal);
        // The listening socket is PID 1's too. MHD_stop_daemon() would shut it down, and the socket unit would fail.
        (void)MHD_quiesce_daemon(daemon);
        MHD_stop_daemon(daemon);
        return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
        try {
                return run(argc, argv);
        } catch (const std::exception& error) {
                print_to_stderr(fmt::format("sockbroker-exporter: {}\n", error.what()));
                return kExitFailed;
        }
}
