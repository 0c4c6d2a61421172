// SPDX-License-Identifier: LGPL-2.1-or-later
// What most tests include and what takes longest to read: precompiled with -Dunits=true, see tests/meson.build. No file
// includes this one.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <expected>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>
