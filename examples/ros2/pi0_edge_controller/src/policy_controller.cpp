// A controller of ros2_control (Jazzy and later) that moves joints as a policy says:
//
//     on_configure    opens the policy, starts inference and subscribes to the cameras; may take long, no motion
//     on_activate     tells where the robot is
//     update          real-time: reads the joints and the action for now; no allocation, no lock, no exception
//     on_deactivate   nothing is commanded any more
//     on_cleanup      stops inference
//
// Images arrive on the controller manager's executor, beside `update`. On HOLD and before the first action the last
// command stays the command. docs/ros2.md has a configuration.
#include <controller_interface/controller_interface.hpp>
#include <pi0_edge.hpp>
#include <pluginlib/class_list_macros.hpp>
#include <realtime_tools/realtime_thread_safe_box.hpp>
#include <sensor_msgs/msg/image.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace pi0_edge_controller {

using controller_interface::CallbackReturn;
using controller_interface::InterfaceConfiguration;
using sensor_msgs::msg::Image;

class PolicyController : public controller_interface::ControllerInterface {
public:
    CallbackReturn on_init() override try {
        auto_declare<std::string>("bundle", "");
        auto_declare<std::string>("prompt", "");
        auto_declare<std::vector<std::string>>("state_joints", {});
        auto_declare<std::vector<std::string>>("action_joints", {});
        auto_declare<std::vector<std::string>>("cameras", {});  // NAME=TOPIC
        auto_declare<double>("action_rate", 50.0);
        auto_declare<double>("max_age", 0.5);
        auto_declare<double>("max_step", std::numeric_limits<double>::infinity());
        return CallbackReturn::SUCCESS;
    } catch (const std::exception& error) {
        RCLCPP_ERROR(get_node()->get_logger(), "%s", error.what());
        return CallbackReturn::ERROR;
    }

    InterfaceConfiguration command_interface_configuration() const override { return positions(action_joints_); }
    InterfaceConfiguration state_interface_configuration() const override { return positions(read_joints_); }

    CallbackReturn on_configure(const rclcpp_lifecycle::State&) override try {
        state_joints_ = get_node()->get_parameter("state_joints").as_string_array();
        action_joints_ = get_node()->get_parameter("action_joints").as_string_array();
        // Each joint once: those of the state first, then those that are only moved.
        read_joints_ = state_joints_;
        for (const auto& joint : action_joints_) {
            if (std::find(read_joints_.begin(), read_joints_.end(), joint) == read_joints_.end()) {
                read_joints_.push_back(joint);
            }
        }

        pi0::PolicyOptions options;
        options.no_spin = 1;
        pi0::Policy policy(get_node()->get_parameter("bundle").as_string(), options);
        info_ = policy.info();
        if (state_joints_.size() != info_.state_dim || action_joints_.size() != info_.action_dim) {
            RCLCPP_ERROR(get_node()->get_logger(), "the policy has %u values in its state and %u in its actions, not %zu and %zu joints",
                         info_.state_dim, info_.action_dim, state_joints_.size(), action_joints_.size());
            return CallbackReturn::FAILURE;
        }

        const auto prompt = get_node()->get_parameter("prompt").as_string();
        const std::vector<float> max_step(
            info_.action_dim, static_cast<float>(get_node()->get_parameter("max_step").as_double()));
        const double max_age = get_node()->get_parameter("max_age").as_double();
        pi0::RuntimeConfig config;
        config.prompt = prompt.empty() ? nullptr : prompt.c_str();
        config.control_period_ns = nanoseconds(1.0 / std::max(1U, get_update_rate()));
        config.action_period_ns = nanoseconds(1.0 / get_node()->get_parameter("action_rate").as_double());
        config.max_age_ns = nanoseconds(max_age);
        config.hold_after_ns = nanoseconds(2 * max_age);
        config.replan_remaining = info_.action_horizon / 2;
        config.step_limits = max_step.data();
        config.step_limits_len = max_step.size();
        auto started = pi0::Runtime::start(std::move(policy), config);
        runtime_ = std::move(started.runtime);
        writer_ = std::move(started.writer);
        controller_ = std::move(started.controller);

        // Memory for everything that update() touches.
        action_.assign(info_.action_dim, 0.0F);
        joints_ = Joints{std::vector<float>(info_.state_dim), 0};
        joints_box_.set(joints_);
        captured_ns_ = 0;
        subscribe(get_node()->get_parameter("cameras").as_string_array());
        return CallbackReturn::SUCCESS;
    } catch (const std::exception& error) {
        RCLCPP_ERROR(get_node()->get_logger(), "%s", error.what());
        return CallbackReturn::FAILURE;
    }

    CallbackReturn on_activate(const rclcpp_lifecycle::State&) override {
        // The robot's own positions limit the first step too. They may come from another thread than update()'s.
        std::vector<float> reference(info_.action_dim);
        for (std::size_t i = 0; i < reference.size(); i++) {
            const auto at = std::find(read_joints_.begin(), read_joints_.end(), action_joints_[i]) - read_joints_.begin();
            reference[i] = position(static_cast<std::size_t>(at));
        }
        const auto status = controller_.attach() < 0 ? PI0_ERR_THREAD : controller_.set_reference(reference);
        if (status < 0) {
            RCLCPP_ERROR(get_node()->get_logger(), "the joints' positions: %s", pi0_status_str(status));
            return CallbackReturn::FAILURE;
        }
        first_update_ = true;
        return CallbackReturn::SUCCESS;
    }

    CallbackReturn on_deactivate(const rclcpp_lifecycle::State&) override { return CallbackReturn::SUCCESS; }

    CallbackReturn on_cleanup(const rclcpp_lifecycle::State&) override try {
        subscriptions_.clear();
        runtime_.stop();
        runtime_ = {};
        writer_ = {};
        controller_ = {};
        return CallbackReturn::SUCCESS;
    } catch (const std::exception& error) {
        RCLCPP_ERROR(get_node()->get_logger(), "%s", error.what());
        return CallbackReturn::FAILURE;
    }

    // Real-time.
    controller_interface::return_type update(const rclcpp::Time&, const rclcpp::Duration&) override {
        if (std::exchange(first_update_, false)) {
            controller_.attach();
        }
        for (std::size_t i = 0; i < joints_.positions.size(); i++) {
            joints_.positions[i] = position(i);
        }
        joints_.read_ns = pi0_now_ns();
        joints_box_.try_set(joints_);  // where the sensor side is just looking: the next tick's will do

        const auto status = controller_.read(action_, reading_);
        if (status < 0) {
            return controller_interface::return_type::ERROR;
        }
        bool taken = true;
        if (status == PI0_OK || status == PI0_STALE) {
            for (std::size_t i = 0; i < action_.size(); i++) {
                taken = command_interfaces_[i].set_value(static_cast<double>(action_[i])) && taken;
            }
        }
        return taken ? controller_interface::return_type::OK : controller_interface::return_type::ERROR;
    }

private:
    // The joints as `update` saw them last, and when.
    struct Joints {
        std::vector<float> positions;
        std::uint64_t read_ns;
    };
    struct Camera {
        std::string name;
        std::uint32_t number;
        std::shared_ptr<const Image> image;
    };

    static InterfaceConfiguration positions(const std::vector<std::string>& joints) {
        InterfaceConfiguration interfaces{controller_interface::interface_configuration_type::INDIVIDUAL, {}};
        for (const auto& joint : joints) {
            interfaces.names.push_back(joint + "/position");
        }
        return interfaces;
    }

    static std::uint64_t nanoseconds(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

    // NaN where the hardware has none; the library refuses it.
    float position(std::size_t joint) const {
        return static_cast<float>(state_interfaces_[joint].get_optional().value_or(std::numeric_limits<double>::quiet_NaN()));
    }

    void subscribe(const std::vector<std::string>& cameras) {
        cameras_.clear();
        for (const auto& camera : cameras) {
            const auto equals = camera.find('=');
            const auto name = camera.substr(0, equals);
            cameras_.push_back({name, writer_.camera(name), nullptr});
        }
        for (std::size_t i = 0; i < cameras.size(); i++) {
            const auto topic = cameras[i].substr(cameras[i].find('=') + 1);
            subscriptions_.push_back(get_node()->create_subscription<Image>(
                topic, rclcpp::SensorDataQoS(), [this, i](std::shared_ptr<const Image> image) { on_image(i, std::move(image)); }));
        }
    }

    // On the controller manager's executor, one at a time: the node's callbacks exclude each other.
    void on_image(std::size_t camera, std::shared_ptr<const Image> image) {
        if (format_of(image->encoding) < 0) {
            RCLCPP_ERROR_THROTTLE(get_node()->get_logger(), *get_node()->get_clock(), 1000,
                                  "%s: encoding %s is not taken; rgb8, bgr8, rgba8, bgra8, mono8, yuv422_yuy2 and uyvy are",
                                  cameras_[camera].name.c_str(), image->encoding.c_str());
            return;
        }
        cameras_[camera].image = std::move(image);
        // The first camera sets the pace; the others are as they came last.
        const Joints joints = joints_box_.get();
        if (camera == 0 && joints.read_ns != 0) {
            observe(joints);
        }
    }

    // PI0_PIXELS_... of an encoding's name in sensor_msgs, or -1.
    static int format_of(const std::string& encoding) {
        static const std::pair<const char*, std::uint32_t> formats[] = {
            {"rgb8", PI0_PIXELS_RGB},         {"bgr8", PI0_PIXELS_BGR},         {"rgba8", PI0_PIXELS_RGBA},
            {"bgra8", PI0_PIXELS_BGRA},       {"mono8", PI0_PIXELS_GREY},       {"yuv422_yuy2", PI0_PIXELS_YUYV},
            {"yuyv", PI0_PIXELS_YUYV},        {"uyvy", PI0_PIXELS_UYVY},        {"yuv422", PI0_PIXELS_UYVY},
        };
        for (const auto& [name, format] : formats) {
            if (encoding == name) {
                return static_cast<int>(format);
            }
        }
        return -1;
    }

    void observe(const Joints& joints) {
        std::uint64_t captured_ns = joints.read_ns;
        writer_.attach();  // the executor may call from another of its threads each time
        for (const auto& camera : cameras_) {
            if (camera.image == nullptr) {
                writer_.clear_frame(camera.number);
                continue;
            }
            const Image& image = *camera.image;
            // A stamp is on ROS's clock; its age there is its age here.
            const std::int64_t age = (get_node()->now() - rclcpp::Time(image.header.stamp)).nanoseconds();
            captured_ns = std::min(captured_ns, pi0_now_ns() - static_cast<std::uint64_t>(std::max<std::int64_t>(age, 0)));
            pi0::CameraFrame frame;
            frame.format = static_cast<std::uint32_t>(format_of(image.encoding));
            frame.width = image.width, frame.height = image.height, frame.row_bytes = image.step;
            frame.data = image.data.data(), frame.data_size = image.data.size();
            pi0_error error{};
            if (writer_.convert_frame(camera.number, frame, &error) < 0) {
                RCLCPP_ERROR_THROTTLE(get_node()->get_logger(), *get_node()->get_clock(), 1000, "%s: %s", camera.name.c_str(),
                                      error.message);
                return;
            }
        }
        report(writer_.set_state(joints.positions), "state");
        // The same stamp comes out a little differently each time; it must not go back.
        captured_ns_ = std::max(captured_ns_, captured_ns);
        report(writer_.publish(captured_ns_), "observation");
    }

    void report(pi0_status status, const std::string& what) {
        if (status < 0) {
            RCLCPP_ERROR_THROTTLE(get_node()->get_logger(), *get_node()->get_clock(), 1000, "%s: %s", what.c_str(),
                                  pi0_status_str(status));
        }
    }

    pi0_info info_{};
    pi0::Runtime runtime_;
    pi0::ObservationWriter writer_;
    pi0::Controller controller_;
    pi0::Reading reading_;
    std::vector<std::string> state_joints_, action_joints_, read_joints_;
    std::vector<float> action_;
    Joints joints_{};
    realtime_tools::RealtimeThreadSafeBox<Joints> joints_box_;
    std::vector<Camera> cameras_;
    std::vector<rclcpp::Subscription<Image>::SharedPtr> subscriptions_;
    std::uint64_t captured_ns_ = 0;
    bool first_update_ = false;
};

}  // namespace pi0_edge_controller

PLUGINLIB_EXPORT_CLASS(pi0_edge_controller::PolicyController, controller_interface::ControllerInterface)
