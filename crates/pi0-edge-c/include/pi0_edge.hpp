// pi0-edge from C++17: a thin layer over pi0_edge.h, header only.
//
// Handles are owned and move only. What is not real-time throws pi0::Error; what a control loop or a sensor thread
// calls is noexcept, allocates nothing and returns a status. Units, shapes and threads are as pi0_edge.h says of the
// function of the same name.
//
//     pi0::Policy policy("BUNDLE");
//     pi0::RuntimeConfig config;
//     config.prompt = "pick up the cube";
//     auto [runtime, writer, controller] = pi0::Runtime::start(std::move(policy), config);
#ifndef PI0_EDGE_HPP
#define PI0_EDGE_HPP

#include <pi0_edge.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pi0 {

// An error of a call that is not real-time: status() for code that decides, what() for people.
class Error : public std::runtime_error {
public:
    Error(pi0_status status, const std::string& words) : std::runtime_error(words), status_(status) {}
    pi0_status status() const noexcept { return status_; }

private:
    pi0_status status_;
};

// Some values in a row that somebody else owns; what std::span is from C++20 on, which converts to it.
template <typename T>
class Span {
public:
    constexpr Span() noexcept = default;
    constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    // Anything with data() and size(): std::vector, std::array, std::span, Eigen's vectors.
    template <typename Container, typename = std::enable_if_t<std::is_convertible_v<
                                      decltype(std::declval<Container&>().data()), T*>>>
    constexpr Span(Container&& container) noexcept
        : data_(container.data()), size_(static_cast<std::size_t>(container.size())) {}

    constexpr T* data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T* begin() const noexcept { return data_; }
    constexpr T* end() const noexcept { return data_ + size_; }
    constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }

private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

inline void check(pi0_status status, const char* what, const pi0_error* error = nullptr) {
    if (status >= 0) {
        return;
    }
    std::string words = std::string(what) + ": " + pi0_status_str(status);
    if (error != nullptr && error->message[0] != '\0') {
        words += std::string(": ") + error->message;
    }
    throw Error(status, words);
}

// A structure that a function fills.
template <typename T>
T sized() noexcept {
    T value{};
    value.struct_size = sizeof value;
    return value;
}

// A handle and the function that frees it.
template <typename H, pi0_status (*Free)(H*)>
class Handle {
public:
    Handle() noexcept = default;
    explicit Handle(H* handle) noexcept : handle_(handle) {}
    Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Handle& operator=(Handle&& other) noexcept {
        if (this != &other) {
            Free(std::exchange(handle_, std::exchange(other.handle_, nullptr)));
        }
        return *this;
    }
    ~Handle() { Free(handle_); }

    H* get() const noexcept { return handle_; }
    H* release() noexcept { return std::exchange(handle_, nullptr); }

private:
    H* handle_ = nullptr;
};

}  // namespace detail

// The C structures, with their defaults.
struct PolicyOptions : pi0_policy_options {
    PolicyOptions() noexcept { pi0_policy_options_default(this, sizeof(pi0_policy_options)); }
};
struct InferOptions : pi0_infer_options {
    InferOptions() noexcept { pi0_infer_options_default(this, sizeof(pi0_infer_options)); }
};
struct RtcConfig : pi0_rtc_config {
    RtcConfig() noexcept { pi0_rtc_config_default(this, sizeof(pi0_rtc_config)); }
};
struct ThreadConfig : pi0_thread_config {
    ThreadConfig() noexcept { pi0_thread_config_default(this, sizeof(pi0_thread_config)); }
};
struct RuntimeConfig : pi0_runtime_config {
    RuntimeConfig() noexcept { pi0_runtime_config_default(this, sizeof(pi0_runtime_config)); }
};
struct CameraFrame : pi0_camera_frame {
    CameraFrame() noexcept : pi0_camera_frame(detail::sized<pi0_camera_frame>()) {}
};
struct Reading : pi0_reading {
    Reading() noexcept : pi0_reading(detail::sized<pi0_reading>()) {}
    bool has(std::uint32_t flag) const noexcept { return (flags & flag) != 0; }
};

// An opened bundle.
class Policy {
public:
    explicit Policy(pi0_policy* policy) noexcept : handle_(policy) {}
    explicit Policy(const std::string& bundle, const PolicyOptions& options = {}) {
        pi0_policy* policy = nullptr;
        pi0_error error{};
        detail::check(pi0_policy_new(bundle.c_str(), &options, &policy, &error), "opening the bundle", &error);
        handle_ = Owned(policy);
    }

    pi0_info info() const {
        auto info = detail::sized<pi0_info>();
        detail::check(pi0_policy_info(get(), &info), "the policy's dimensions");
        return info;
    }

    // The cameras' names, in the policy's order.
    std::vector<std::string> cameras() const {
        std::vector<std::string> names;
        const std::uint32_t count = info().cameras;
        for (std::uint32_t camera = 0; camera < count; camera++) {
            char name[256];
            detail::check(pi0_policy_camera(get(), camera, name, sizeof name, nullptr), "a camera's name");
            names.emplace_back(name);
        }
        return names;
    }

    // One chunk into the caller's buffer, action_horizon * action_dim values, the first action first.
    void infer(Span<const pi0_image> images, Span<const float> state, const char* prompt, Span<float> actions,
               const InferOptions& options = {}) {
        auto observation = detail::sized<pi0_observation>();
        observation.images = images.data();
        observation.image_count = images.size();
        observation.state = state.data();
        observation.state_len = state.size();
        observation.prompt = prompt;
        pi0_error error{};
        const auto status =
            pi0_policy_infer(get(), &observation, &options, actions.data(), actions.size(), &error);
        detail::check(status, "inference", &error);
    }

    // Where the time of the last chunk went.
    pi0_timing timing() const {
        auto timing = detail::sized<pi0_timing>();
        detail::check(pi0_policy_timing(get(), &timing), "the last chunk's times");
        return timing;
    }

    pi0_policy* get() const noexcept { return handle_.get(); }
    pi0_policy* release() noexcept { return handle_.release(); }

private:
    using Owned = detail::Handle<pi0_policy, pi0_policy_free>;
    Owned handle_;
};

// The sensor side. It belongs to the first thread that calls; attach() hands it to another.
class ObservationWriter {
public:
    ObservationWriter() noexcept = default;
    explicit ObservationWriter(pi0_observation_writer* writer) noexcept : handle_(writer) {}

    // The number of the camera called `name`.
    std::uint32_t camera(const std::string& name) {
        std::uint32_t number = 0;
        detail::check(pi0_observation_writer_camera(get(), name.c_str(), &number), name.c_str());
        return number;
    }

    // A camera's pixels to be filled in place, height * width * 3 bytes; empty if that cannot be.
    Span<std::uint8_t> frame(std::uint32_t camera, std::uint32_t width, std::uint32_t height) noexcept {
        std::uint8_t* pixels = nullptr;
        const auto status = pi0_observation_writer_frame(get(), camera, width, height, &pixels);
        return status == PI0_OK ? Span<std::uint8_t>(pixels, std::size_t{width} * height * 3)
                                : Span<std::uint8_t>();
    }

    pi0_status set_frame(std::uint32_t camera, std::uint32_t width, std::uint32_t height,
                         const std::uint8_t* rgb, std::size_t row_bytes) noexcept {
        return pi0_observation_writer_set_frame(get(), camera, width, height, rgb, row_bytes);
    }

    // A frame in its driver's layout, converted into the slot.
    pi0_status convert_frame(std::uint32_t camera, const pi0_camera_frame& frame,
                             pi0_error* error = nullptr) noexcept {
        return pi0_observation_writer_convert_frame(get(), camera, &frame, error);
    }

    pi0_status clear_frame(std::uint32_t camera) noexcept {
        return pi0_observation_writer_clear_frame(get(), camera);
    }

    pi0_status set_state(Span<const float> state) noexcept {
        return pi0_observation_writer_set_state(get(), state.data(), state.size());
    }

    pi0_status publish(std::uint64_t captured_ns, pi0_published* published = nullptr) noexcept {
        return pi0_observation_writer_publish(get(), captured_ns, published);
    }

    pi0_status attach() noexcept { return pi0_observation_writer_attach(get()); }

    pi0_observation_writer* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<pi0_observation_writer, pi0_observation_writer_free> handle_;
};

// The control loop's side. It belongs to the first thread that calls; attach() hands it to another.
class Controller {
public:
    Controller() noexcept = default;
    explicit Controller(pi0_controller* controller) noexcept : handle_(controller) {}

    // The action for now: PI0_OK, PI0_STALE, PI0_HOLD or PI0_EMPTY; negative for an error. RT-safe.
    pi0_status read(Span<float> action, Reading& reading) noexcept {
        return pi0_controller_read(get(), action.data(), action.size(), &reading);
    }
    pi0_status read(Span<float> action) noexcept {
        return pi0_controller_read(get(), action.data(), action.size(), nullptr);
    }

    pi0_status set_reference(Span<const float> position) noexcept {
        return pi0_controller_set_reference(get(), position.data(), position.size());
    }

    pi0_status set_step_limits(Span<const float> limits) noexcept {
        return pi0_controller_set_step_limits(get(), limits.data(), limits.size());
    }

    // The measured state for the next read, for PI0_SPLICE_STATE; NaN for a joint that is not measured.
    pi0_status set_state(Span<const float> state) noexcept {
        return pi0_controller_set_state(get(), state.data(), state.size());
    }

    pi0_status clear_trip() noexcept { return pi0_controller_clear_trip(get()); }

    pi0_status attach() noexcept { return pi0_controller_attach(get()); }

    pi0_controller* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<pi0_controller, pi0_controller_free> handle_;
};

// The runtime's owner. Its functions may be called from several threads at once; destroying it stops inference.
class Runtime {
public:
    struct Started;

    Runtime() noexcept = default;
    explicit Runtime(pi0_runtime* runtime) noexcept : handle_(runtime) {}

    // Starts inference on a thread of its own; returns once the policy is warmed up. Takes the policy over.
    static Started start(Policy&& policy, const RuntimeConfig& config = {});

    void stop() {
        pi0_error error{};
        detail::check(pi0_runtime_stop(get(), &error), "stopping", &error);
    }

    // Stops and gives the policy back, to be started again without being loaded.
    Policy take_policy() {
        pi0_policy* policy = nullptr;
        pi0_error error{};
        detail::check(pi0_runtime_take_policy(get(), &policy, &error), "taking the policy back", &error);
        return Policy(policy);
    }

    // Drops the plan and the held action: reads are PI0_EMPTY until the first chunk of what is observed from now on.
    void begin_episode() { detail::check(pi0_runtime_begin_episode(get()), "beginning an episode"); }

    // True if there is a systemd that wants to know.
    bool notify_systemd() {
        std::uint32_t found = 0;
        pi0_error error{};
        detail::check(pi0_runtime_notify_systemd(get(), &found, &error), "notifying systemd", &error);
        return found != 0;
    }

    void set_prompt(const std::string& prompt) {
        detail::check(pi0_runtime_set_prompt(get(), prompt.c_str()), "setting the prompt");
    }

    void set_num_steps(std::uint32_t num_steps) {
        detail::check(pi0_runtime_set_num_steps(get(), num_steps), "setting the number of steps");
    }

    // One value a joint, both ends included.
    void set_limits(Span<const float> min, Span<const float> max) {
        if (min.size() != max.size()) {
            throw Error(PI0_ERR_SIZE, "setting limits: as many lowest as highest values");
        }
        auto limits = detail::sized<pi0_limits>();
        limits.min = min.data();
        limits.max = max.data();
        limits.len = min.size();
        detail::check(pi0_runtime_set_limits(get(), &limits), "setting limits");
    }

    void clear_limits() { detail::check(pi0_runtime_set_limits(get(), nullptr), "clearing limits"); }

    // Real-time chunking on, with other settings, or off.
    void set_rtc(const std::optional<RtcConfig>& rtc) {
        const pi0_rtc_config* config = rtc ? &*rtc : nullptr;
        detail::check(pi0_runtime_set_rtc(get(), config), "setting RTC");
    }

    pi0_info info() const {
        auto info = detail::sized<pi0_info>();
        detail::check(pi0_runtime_info(get(), &info), "the policy's dimensions");
        return info;
    }

    pi0_stats stats() const {
        auto stats = detail::sized<pi0_stats>();
        detail::check(pi0_runtime_stats(get(), &stats), "statistics");
        return stats;
    }

    pi0_realtime realtime() const {
        auto realtime = detail::sized<pi0_realtime>();
        detail::check(pi0_runtime_realtime(get(), &realtime), "the inference thread's rights");
        return realtime;
    }

    // The next event, if there is one within `timeout_ns`.
    std::optional<pi0_event> next_event(std::uint64_t timeout_ns = 0) {
        auto event = detail::sized<pi0_event>();
        const auto status = pi0_runtime_next_event(get(), timeout_ns, &event);
        detail::check(status, "the next event");
        return status == PI0_OK ? std::optional<pi0_event>(event) : std::nullopt;
    }

    void write_flight_record(const std::string& path) const {
        pi0_error error{};
        const auto status = pi0_runtime_write_flight_record(get(), path.c_str(), &error);
        detail::check(status, "the flight record", &error);
    }

    pi0_runtime* get() const noexcept { return handle_.get(); }

private:
    detail::Handle<pi0_runtime, pi0_runtime_free> handle_;
};

// The three sides of a runtime that was started.
struct Runtime::Started {
    Runtime runtime;
    ObservationWriter writer;
    Controller controller;
};

inline Runtime::Started Runtime::start(Policy&& policy, const RuntimeConfig& config) {
    pi0_runtime* runtime = nullptr;
    pi0_observation_writer* writer = nullptr;
    pi0_controller* controller = nullptr;
    pi0_error error{};
    const auto status = pi0_runtime_start(policy.release(), &config, &runtime, &writer, &controller, &error);
    detail::check(status, "starting the runtime", &error);
    return Started{Runtime(runtime), ObservationWriter(writer), Controller(controller)};
}

}  // namespace pi0

#endif  // PI0_EDGE_HPP
