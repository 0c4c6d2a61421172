// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fuzzer's work with a fixed seed and without its compiler: texts made from good and bad ones by cutting, joining,
// flipping and repeating. Each kind of text adds steps of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sockbroker::test {

class Mutator {
public:
        // `bytes`: those that are put in. A text has at most `max_steps` changes, and `max_size` bytes.
        Mutator(std::vector<std::string> seeds, std::string_view bytes, std::size_t max_steps, std::size_t max_size)
                : seeds_(std::move(seeds)), bytes_(bytes), max_steps_(max_steps), max_size_(max_size) {}
        virtual ~Mutator() = default;
        Mutator(const Mutator&) = delete;
        Mutator& operator=(const Mutator&) = delete;

        std::size_t pick(std::size_t below) {
                return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
        }

        std::string next() {
                std::string text = seed();
                for (std::size_t steps = pick(max_steps_ + 1); steps > 0; steps--) {
                        mutate(text);
                }
                text.resize(std::min(text.size(), max_size_));
                return text;
        }

protected:
        const std::string& seed() { return seeds_[pick(seeds_.size())]; }
        char byte() { return bytes_[pick(bytes_.size())]; }

        // Where a change begins.
        virtual std::size_t position(const std::string& text) { return pick(text.size() + 1); }
        // The steps of this kind of text: as many as it has, and number `step` of them.
        [[nodiscard]] virtual std::size_t own_steps() const = 0;
        virtual void own_step(std::size_t step, std::string& text, std::size_t at) = 0;

private:
        void mutate(std::string& text) {
                const std::size_t at = position(text);
                switch (const std::size_t step = pick(5 + own_steps())) {
                case 0:
                        text.insert(at, 1, byte());
                        break;
                case 1:
                        text.erase(at, 1 + pick(4));
                        break;
                case 2:
                        if (at < text.size()) {
                                text[at] = static_cast<char>(text[at] ^ (1 << pick(8)));
                        }
                        break;
                case 3:
                        text.insert(at, seed());
                        break;
                case 4:
                        text.resize(at);
                        break;
                default:
                        own_step(step - 5, text, at);
                }
        }

        std::vector<std::string> seeds_;
        std::string_view bytes_;
        std::size_t max_steps_;
        std::size_t max_size_;
        std::mt19937 random_{20190101};  // NOLINT: the same texts every time
};

}  // namespace sockbroker::test
