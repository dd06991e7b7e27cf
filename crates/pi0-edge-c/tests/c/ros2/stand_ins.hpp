// What examples/ros2/pi0_edge_controller uses of ROS 2, as plain types: enough to compile it and to run it under the
// sanitizers. Signatures are those of Jazzy. Every ROS header that the example includes becomes an inclusion of this.
#ifndef STAND_INS_HPP
#define STAND_INS_HPP

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace builtin_interfaces::msg {
struct Time {
    std::int32_t sec;
    std::uint32_t nanosec;
};
}  // namespace builtin_interfaces::msg

namespace sensor_msgs::msg {
struct Image {
    struct {
        builtin_interfaces::msg::Time stamp;
        std::string frame_id;
    } header;
    std::uint32_t height, width;
    std::string encoding;
    std::uint8_t is_bigendian;
    std::uint32_t step;
    std::vector<std::uint8_t> data;
};
}  // namespace sensor_msgs::msg

namespace rclcpp {
struct Duration {
    std::int64_t value;
    std::int64_t nanoseconds() const { return value; }
};
struct Time {
    std::int64_t value = 0;
    Time() = default;
    explicit Time(std::int64_t nanoseconds) : value(nanoseconds) {}
    Time(const builtin_interfaces::msg::Time& stamp) : value(stamp.sec * std::int64_t{1'000'000'000} + stamp.nanosec) {}
    Duration operator-(const Time& other) const { return {value - other.value}; }
};
struct Clock {
    Time now() {
        return Time(std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count());
    }
};
struct Logger {};
struct SensorDataQoS {};
template <typename Message>
struct Subscription {
    using SharedPtr = std::shared_ptr<Subscription>;
    std::function<void(std::shared_ptr<const Message>)> callback;
};
using Value = std::variant<std::string, std::vector<std::string>, double>;
struct Parameter {
    Value value;
    std::string as_string() const { return std::get<std::string>(value); }
    std::vector<std::string> as_string_array() const { return std::get<std::vector<std::string>>(value); }
    double as_double() const { return std::get<double>(value); }
};
}  // namespace rclcpp

#define RCLCPP_ERROR(logger, ...) (void)(logger), std::fprintf(stderr, __VA_ARGS__), std::fputc('\n', stderr)
#define RCLCPP_ERROR_THROTTLE(logger, clock, period, ...) (void)(clock), RCLCPP_ERROR(logger, __VA_ARGS__)

namespace rclcpp_lifecycle {
struct State {};
struct LifecycleNode {
    std::map<std::string, rclcpp::Value> parameters;
    std::map<std::string, std::shared_ptr<rclcpp::Subscription<sensor_msgs::msg::Image>>> subscriptions;
    std::shared_ptr<rclcpp::Clock> clock = std::make_shared<rclcpp::Clock>();

    rclcpp::Logger get_logger() const { return {}; }
    std::shared_ptr<rclcpp::Clock> get_clock() { return clock; }
    rclcpp::Time now() const { return clock->now(); }
    rclcpp::Parameter get_parameter(const std::string& name) const { return {parameters.at(name)}; }
    template <typename Message, typename Callback>
    std::shared_ptr<rclcpp::Subscription<Message>> create_subscription(const std::string& topic, rclcpp::SensorDataQoS, Callback callback) {
        return subscriptions[topic] = std::make_shared<rclcpp::Subscription<Message>>(rclcpp::Subscription<Message>{callback});
    }
};
}  // namespace rclcpp_lifecycle

namespace hardware_interface {
struct LoanedStateInterface {
    const double* value;
    template <typename T = double>
    std::optional<T> get_optional(unsigned = 10) const { return *value; }
};
struct LoanedCommandInterface {
    double* value;
    template <typename T>
    [[nodiscard]] bool set_value(const T& given, unsigned = 10) {
        *value = given;
        return true;
    }
};
}  // namespace hardware_interface

namespace controller_interface {
enum class CallbackReturn : std::uint8_t { SUCCESS = 97, FAILURE = 98, ERROR = 99 };
enum class return_type : std::uint8_t { OK = 0, ERROR = 1 };
enum class interface_configuration_type : std::uint8_t { ALL = 0, INDIVIDUAL = 1, NONE = 2 };
struct InterfaceConfiguration {
    interface_configuration_type type;
    std::vector<std::string> names;
};
class ControllerInterface {
public:
    virtual ~ControllerInterface() = default;
    virtual CallbackReturn on_init() = 0;
    virtual InterfaceConfiguration command_interface_configuration() const = 0;
    virtual InterfaceConfiguration state_interface_configuration() const = 0;
    virtual CallbackReturn on_configure(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
    virtual CallbackReturn on_activate(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
    virtual CallbackReturn on_deactivate(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
    virtual CallbackReturn on_cleanup(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
    virtual return_type update(const rclcpp::Time& time, const rclcpp::Duration& period) = 0;

    std::shared_ptr<rclcpp_lifecycle::LifecycleNode> get_node() const { return node; }
    unsigned int get_update_rate() const { return 500; }
    template <typename T>
    void auto_declare(const std::string& name, const T& value) { node->parameters.try_emplace(name, value); }

    std::shared_ptr<rclcpp_lifecycle::LifecycleNode> node = std::make_shared<rclcpp_lifecycle::LifecycleNode>();
    std::vector<hardware_interface::LoanedCommandInterface> command_interfaces_;
    std::vector<hardware_interface::LoanedStateInterface> state_interfaces_;
};
}  // namespace controller_interface

namespace realtime_tools {
template <typename T>
class RealtimeThreadSafeBox {
public:
    explicit RealtimeThreadSafeBox(const T& value = T{}) : value_(value) {}
    bool try_set(const T& value) {
        std::unique_lock<std::mutex> lock(lock_, std::try_to_lock);
        if (lock) {
            value_ = value;
        }
        return lock.owns_lock();
    }
    void set(const T& value) {
        std::lock_guard<std::mutex> lock(lock_);
        value_ = value;
    }
    T get() const {
        std::lock_guard<std::mutex> lock(lock_);
        return value_;
    }

private:
    T value_;
    mutable std::mutex lock_;
};
}  // namespace realtime_tools

std::unique_ptr<controller_interface::ControllerInterface> make_plugin();
#define PLUGINLIB_EXPORT_CLASS(type, base) \
    std::unique_ptr<base> make_plugin() { return std::make_unique<type>(); }

#endif  // STAND_INS_HPP
