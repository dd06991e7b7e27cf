// Takes the controller of examples/ros2 through its life, as the controller manager does: `update` at 500 Hz on one
// thread, images on another.
//
//     controller_manager BUNDLE [SECONDS]      from the first command on, for which it waits a minute at most
#include "policy_controller.cpp"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <thread>

using controller_interface::CallbackReturn;
using namespace std::chrono_literals;

int main(int argc, char** argv) {
    if (argc < 2) {
        return 2;
    }
    const std::vector<std::string> arm{"j0", "j1", "j2", "j3", "j4", "j5"};
    std::vector<std::string> all = arm;
    all.emplace_back("gripper");
    auto plugin = make_plugin();
    auto& parameters = plugin->node->parameters;
    parameters = {{"bundle", argv[1]}, {"prompt", "open the drawer"}, {"state_joints", arm}, {"action_joints", all}, {"max_age", 30.0},
                  {"cameras", std::vector<std::string>{"observation.images.base=/base", "observation.images.wrist=/wrist"}},
                  {"max_step", 0.01}};
    const rclcpp_lifecycle::State state;
    if (plugin->on_init() != CallbackReturn::SUCCESS || plugin->on_configure(state) != CallbackReturn::SUCCESS) {
        return EXIT_FAILURE;
    }
    const auto claimed = plugin->command_interface_configuration().names, read = plugin->state_interface_configuration().names;
    std::vector<double> positions(read.size(), 0.25), commands(claimed.size(), std::nan(""));
    for (auto& command : commands) {
        plugin->command_interfaces_.push_back({&command});
    }
    for (const auto& position : positions) {
        plugin->state_interfaces_.push_back({&position});
    }
    if (claimed.size() != 7 || read.size() != 7 || claimed[6] != "gripper/position") {
        return EXIT_FAILURE;
    }

    const std::chrono::seconds duration(argc > 2 ? std::atoi(argv[2]) : 2);
    std::atomic<bool> ending{false};
    std::thread executor([&] {
        while (!ending) {
            for (const auto& [topic, subscription] : plugin->node->subscriptions) {
                auto image = std::make_shared<sensor_msgs::msg::Image>();
                image->height = 48, image->width = 64, image->step = 200;
                image->encoding = topic.find("wrist") != std::string::npos ? "yuv422_yuy2" : "bgr8";
                image->data.assign(48 * 200, 90);
                const auto now = plugin->node->now().value;
                image->header.stamp = {static_cast<std::int32_t>(now / 1'000'000'000), static_cast<std::uint32_t>(now % 1'000'000'000)};
                subscription->callback(image);
            }
            std::this_thread::sleep_for(33ms);
        }
    });
    bool failed = plugin->on_activate(state) != CallbackReturn::SUCCESS;
    std::size_t moved = 0, updates = 0;
    double largest = 0.0;
    std::thread control_loop([&] {
        auto next = std::chrono::steady_clock::now(), end = next + 60s;
        std::vector<double> before = positions;
        while (!failed && next < end) {
            failed = plugin->update(rclcpp::Time(), rclcpp::Duration{2'000'000}) != controller_interface::return_type::OK;
            updates++;
            if (!std::isnan(commands[0])) {
                if (moved++ == 0) {
                    end = next + duration;
                }
                for (std::size_t i = 0; i < commands.size(); i++) {
                    largest = std::max(largest, std::abs(commands[i] - before[i]));
                }
                before = positions = commands;
            }
            std::this_thread::sleep_until(next += 2ms);
        }
    });
    control_loop.join();
    ending = true;
    executor.join();
    failed |= plugin->on_deactivate(state) != CallbackReturn::SUCCESS || plugin->on_cleanup(state) != CallbackReturn::SUCCESS;
    // As on a second configuration after a clean-up.
    failed |= plugin->on_configure(state) != CallbackReturn::SUCCESS || plugin->on_cleanup(state) != CallbackReturn::SUCCESS;
    std::cout << updates << " updates, " << moved << " with a command, largest step " << largest << '\n';
    return failed || moved == 0 || largest > 0.0101 ? EXIT_FAILURE : EXIT_SUCCESS;
}
