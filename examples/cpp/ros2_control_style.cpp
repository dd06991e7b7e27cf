// A controller with the life cycle and the habits of ros2_control, without ROS:
//
//     on_configure    opens the policy and starts inference; may take long, may fail, no motion
//     on_activate     tells where the robot is
//     update          real-time: reads the action for now; no allocation, no lock, no exception
//     on_deactivate   motion is held
//     on_cleanup      stops inference
//
// and beside it a sensor thread, as a camera driver's callback would be.
//
//     c++ -std=c++17 ros2_control_style.cpp $(pkg-config --cflags --libs pi0_edge) -pthread -o ros2_control_style
//     ./ros2_control_style BUNDLE [SECONDS]
#include <pi0_edge.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

enum class CallbackReturn { SUCCESS, FAILURE };
enum class return_type { OK, ERROR };

class PolicyController {
public:
    CallbackReturn on_configure(const std::string& bundle) try {
        pi0::PolicyOptions options;
        options.threads = 1;
        options.no_spin = 1;
        pi0::Policy policy(bundle, options);
        info_ = policy.info();

        pi0::RuntimeConfig config;
        config.prompt = "pick up the cube";
        config.control_period_ns = 2'000'000;
        config.on_underrun = PI0_UNDERRUN_RAMP;
        config.ramp_ns = 200'000'000;
        auto started = pi0::Runtime::start(std::move(policy), config);
        runtime_ = std::move(started.runtime);
        writer_ = std::move(started.writer);
        controller_ = std::move(started.controller);

        // Memory for everything that update() touches.
        action_.assign(info_.action_dim, 0.0F);
        commands_.assign(info_.action_dim, 0.0F);
        return CallbackReturn::SUCCESS;
    } catch (const pi0::Error& error) {
        std::cerr << error.what() << " (status " << error.status() << ")\n";
        return CallbackReturn::FAILURE;
    }

    CallbackReturn on_activate() {
        // ros2_control may call this from another thread than update().
        if (controller_.attach() < 0 || controller_.set_reference(commands_) < 0) {
            return CallbackReturn::FAILURE;
        }
        first_update_ = true;
        return CallbackReturn::SUCCESS;
    }

    // Real-time.
    return_type update() noexcept {
        if (std::exchange(first_update_, false)) {
            controller_.attach();
        }
        const pi0_status status = controller_.read(action_, reading_);
        // Negative is an error; a library newer than this program may know more statuses.
        if (status < 0 || static_cast<std::size_t>(status) >= reads_.size()) {
            return return_type::ERROR;
        }
        reads_[static_cast<std::size_t>(status)]++;
        // On STALE, HOLD and EMPTY this robot stays where it is; the last command is still the command.
        if (status == PI0_OK) {
            std::copy(action_.begin(), action_.end(), commands_.begin());
        }
        return return_type::OK;
    }

    CallbackReturn on_cleanup() try {
        runtime_.stop();
        return CallbackReturn::SUCCESS;
    } catch (const pi0::Error& error) {
        std::cerr << error.what() << '\n';
        return CallbackReturn::FAILURE;
    }

    // What a camera driver's callback does, on its thread.
    void on_camera_frame(std::uint8_t brightness) noexcept {
        const std::uint64_t captured_ns = pi0_now_ns();
        for (std::uint32_t camera = 0; camera < info_.cameras; camera++) {
            auto pixels = writer_.frame(camera, 320, 240);
            std::fill(pixels.begin(), pixels.end(), brightness);
        }
        std::array<float, 64> state{};
        writer_.set_state(pi0::Span<const float>(state.data(), std::min<std::size_t>(info_.state_dim, 64)));
        writer_.publish(captured_ns);
    }

    void report() const {
        const auto stats = runtime_.stats();
        std::cout << "ok " << reads_[PI0_OK] << ", stale " << reads_[PI0_STALE] << ", hold " << reads_[PI0_HOLD]
                  << ", empty " << reads_[PI0_EMPTY] << "; chunks " << stats.chunks_published << ", underruns "
                  << stats.underruns << '\n';
    }

private:
    pi0_info info_{};
    pi0::Runtime runtime_;
    pi0::ObservationWriter writer_;
    pi0::Controller controller_;
    pi0::Reading reading_;
    std::vector<float> action_, commands_;
    std::array<std::uint64_t, 4> reads_{};
    bool first_update_ = false;
};

int main(int argc, char** argv) {
    if (argc < 2 || argc > 3) {
        std::cerr << "usage: " << argv[0] << " BUNDLE [SECONDS]\n";
        return 2;
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 2 ? std::atoi(argv[2]) : 5);
    PolicyController controller;
    if (controller.on_configure(argv[1]) != CallbackReturn::SUCCESS) {
        return EXIT_FAILURE;
    }

    std::atomic<bool> ending{false};
    std::thread camera([&] {
        for (std::uint8_t frame = 0; !ending; frame++) {
            controller.on_camera_frame(frame);
            std::this_thread::sleep_for(33ms);
        }
    });
    bool failed = controller.on_activate() != CallbackReturn::SUCCESS;
    std::thread control_loop([&] {
        auto next = std::chrono::steady_clock::now();
        while (!failed && next < end) {
            failed = controller.update() != return_type::OK;
            std::this_thread::sleep_until(next += 2ms);
        }
    });
    control_loop.join();
    ending = true;
    camera.join();
    failed |= controller.on_cleanup() != CallbackReturn::SUCCESS;
    controller.report();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
