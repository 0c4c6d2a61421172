// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/command_line.h"

#include <utility>

#include "broker/base/printable.h"

namespace sockbroker {

namespace {

// A short option stands in optopt, a long one is the argument just read.
std::string wrong_option(char* const* argv) {
        return ::optopt > 0 && ::optopt < 256 ? std::string("-") + static_cast<char>(::optopt) : argv[::optind - 1];
}

}  // namespace

Result<int> read_options(int argc, char* const* argv, const char* short_options, std::span<const option> long_options,
                         const std::function<Result<void>(const GivenOption&)>& take) {
        ::optind = 0;  // glibc: start anew, and read POSIXLY_CORRECT again
        ::opterr = 0;
        while (true) {
                int index = -1;
                const int code = ::getopt_long(argc, argv, short_options, long_options.data(), &index);
                if (code == -1) {
                        return ::optind;
                }
                if (code == ':') {
                        return fail("option " + printable(argv[::optind - 1]) + " wants a value");
                }
                if (code == '?') {
                        return fail("option " + printable(wrong_option(argv)) +
                                    " is unknown, ambiguous, or takes no value, see --help");
                }
                const GivenOption given{
                        .code = code,
                        .name = index >= 0 ? std::string("--") + long_options[static_cast<std::size_t>(index)].name
                                           : std::string("-") + static_cast<char>(code),
                        .value = ::optarg == nullptr ? "" : ::optarg};
                if (auto taken = take(given); !taken) {
                        return std::unexpected(std::move(taken.error()));
                }
        }
}

Result<void> take_directory(std::string& target, const GivenOption& given) {
        if (given.value.empty()) {
                return fail("option " + given.name + " wants a directory");
        }
        target = given.value;
        return {};
}

Result<void> DirectoryOptions::take(const GivenOption& given) {
        switch (given.code) {
        case kNetns: {
                const auto directories = directories_of_netns(given.value);
                if (!directories) {
                        return std::unexpected(directories.error());
                }
                netns_ = given.value;
                default_ = *directories;
                return {};
        }
        case kConfigDir: {
                auto taken = take_directory(config_dir_, given);
                named_.config_dirs = {config_dir_};
                return taken;
        }
        case kRuntimeDir:
                return take_directory(named_.runtime_dir, given);
        case kBpffs:
                return take_directory(named_.bpffs, given);
        default:
                return take_directory(named_.state_dir, given);
        }
}

Directories DirectoryOptions::directories() const {
        Directories directories = default_;
        directories.override_by(named_);
        return directories;
}

}  // namespace sockbroker
